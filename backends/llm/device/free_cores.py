"""How many threads torch computes with: as many as there are cores free.

Torch's threads wait for one another behind each operation. One that has to share its core with
somebody else makes all others wait as long as it does: then fewer threads are faster.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PERIOD_S = 0.25
_OLD_S = 2.0
"""What was read before that says nothing of now."""
_WAITING = 0.2
"""Of a core: threads that wait for one as much share it with others."""
_FREE = 0.8
"""Of a core that nobody uses: one more thread has a place."""
_TASKS = Path("/proc/self/task")
_STAT = Path("/proc/stat")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the kernel has counted so far, in seconds of a core."""

    waited_s: float
    """This process's threads, for a core."""
    idle_s: float
    """The cores that it may use."""


def read_cores(tasks: Path = _TASKS, stat: Path = _STAT) -> Reading | None:
    """None where the kernel does not tell."""
    try:
        waits = [
            int((task / "schedstat").read_text().split()[1]) for task in tasks.iterdir()
        ]  # fmt: skip
        lines = [line.split() for line in stat.read_text().splitlines()]
    except (OSError, IndexError, ValueError):
        return None  # a thread has ended meanwhile, or there is no such thing here
    mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    idle = sum(int(line[4]) + int(line[5]) for line in lines if line and line[0] in mine)
    return Reading(sum(waits) / 1e9, idle * _TICK_S)


def fitting(num_threads: int, most: int, *, waiting: float, free: float) -> int:
    """How many threads are to compute next, of those who waited for cores and found them free."""
    if waiting > _WAITING:
        return max(1, num_threads - max(1, round(waiting)))
    if free > _FREE:
        return min(most, num_threads + max(1, int(free)))
    return num_threads


class FreeCores:
    """Follows the cores that are free while steps are computed. Owned by the engine's thread."""

    def __init__(
        self,
        most: int,
        use: Callable[[int], None],
        read: Callable[[], Reading | None] = read_cores,
    ) -> None:
        """`use`: sets the number of threads, which is `most` at first."""
        self._most = self._num_threads = most
        self._use, self._read = use, read
        self._last: Reading | None = None
        self._next_s = self._last_s = 0.0

    def look(self, now_s: float) -> None:
        """Before a step; most of the time it is too early to do anything."""
        if now_s < self._next_s:
            return
        self._next_s = now_s + _PERIOD_S
        reading, last, elapsed_s = self._read(), self._last, now_s - self._last_s
        self._last, self._last_s = reading, now_s
        if reading is None or last is None or elapsed_s > _OLD_S:
            return
        wanted = fitting(
            self._num_threads, self._most,
            waiting=(reading.waited_s - last.waited_s) / elapsed_s,
            free=(reading.idle_s - last.idle_s) / elapsed_s,
        )  # fmt: skip
        if wanted != self._num_threads:
            self._num_threads = wanted
            self._use(wanted)
