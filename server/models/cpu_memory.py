"""Memory that instances take, by their own word or by that of their processes.

That of an instance inside the server which does not report it can only be told by how much the
server grows while it is opened, and by its files.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import psutil

from trivet.backends.api import Instance, Measure, ReportsMemory


@runtime_checkable
class HasProcess(Protocol):
    """An instance in a process of its own."""

    @property
    def pid(self) -> int | None:
        """None while there is none."""


def host_bytes(instances: Sequence[Instance], measure: Measure) -> int:
    """What the instances take in host memory together, as far as it is known."""
    return reported(instances, measure)[None] + _bytes_of_processes(instances)


def reported(instances: Iterable[Instance], measure: Measure) -> Counter[int | None]:
    """What the instances themselves say: bytes by GPU number, and under None those of the host."""
    sizes: Counter[int | None] = Counter()
    if measure is Measure.REPORT:
        for instance in instances:
            if isinstance(instance, ReportsMemory):
                sizes.update(instance.memory_bytes())
    return sizes


@dataclass(slots=True)
class Growth:
    """How much this process has grown within a context."""

    size_bytes: int = 0


class GrowthMeter:
    """Tells how much this process grows while something is opened in it. For any thread: one after
    another, or each would be told of the others' growth, too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = psutil.Process()

    @contextmanager
    def measured(self) -> Iterator[Growth]:
        """Told at the end of the context."""
        with self._lock:
            growth, before = Growth(), self._process.memory_info().rss
            yield growth
            growth.size_bytes = max(0, self._process.memory_info().rss - before)


def _bytes_of_processes(instances: Iterable[object]) -> int:
    size_bytes = 0
    for instance in instances:
        if isinstance(instance, HasProcess) and instance.pid is not None:
            # It may have died meanwhile.
            with suppress(psutil.Error):
                # What it shares with others would not be free without it.
                size_bytes += psutil.Process(instance.pid).memory_full_info().uss
    return size_bytes
