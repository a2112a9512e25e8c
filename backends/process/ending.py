"""How a child process ended: in words, and as a cause that is counted."""

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trivet.backends.api.supervision import Cause

_VMSTAT = Path("/proc/vmstat")
_LOOK_S = 0.25
_FRESH_S = 5.0
"""How long a process that is killed for its memory may take to be gone."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Of one process."""

    cause: Cause
    text: str

    @classmethod
    def of(cls, code: int, *, is_out_of_memory: bool) -> "Ending":
        """By subprocess's exit code, and whether the kernel has lately killed for memory."""
        if code >= 0:
            return cls(Cause.EXIT, f"exit code {code}")
        if code == -signal.SIGKILL and is_out_of_memory:
            return cls(Cause.OUT_OF_MEMORY, "signal 9, out of memory")
        return cls(Cause.SIGNAL, f"signal {-code}")


class MemoryKills:
    """Whether the kernel has killed a process for its memory lately, in this server's container or
    beside it: it counts them, and names no process."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._looked_s = now()
        self._count = _count()
        self._changed_s = -math.inf

    def look(self) -> None:
        """To be called often, so that it is known when the count has changed; it is read now and
        then, since the kernel writes a page of numbers for it."""
        if self._now() - self._looked_s >= _LOOK_S:
            self._read()

    def are_fresh(self) -> bool:
        """Whether one was within the last seconds."""
        self._read()
        return self._now() - self._changed_s < _FRESH_S

    def _read(self) -> None:
        self._looked_s = self._now()
        count = _count()
        if count != self._count:
            self._count = count
            self._changed_s = self._looked_s


def _count() -> int:
    try:
        text = _VMSTAT.read_text()
    except OSError:
        return 0
    lines = (line.partition(" ") for line in text.splitlines())
    return next((int(value) for name, _, value in lines if name == "oom_kill"), 0)
