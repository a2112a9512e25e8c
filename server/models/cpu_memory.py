"""Memory that instances take, by their own word or by that of their processes.

That of an instance inside the server which does not report it can only be told by how much the
server grows while it is opened, and by its files.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol, Self, runtime_checkable

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


class Growth:
    """How much this process grows within the context; what others do meanwhile is in it, too."""

    def __enter__(self) -> Self:
        self.size_bytes = -psutil.Process().memory_info().rss
        return self

    def __exit__(self, *_: object) -> None:
        self.size_bytes = max(0, self.size_bytes + psutil.Process().memory_info().rss)


def _bytes_of_processes(instances: Iterable[object]) -> int:
    size_bytes = 0
    for instance in instances:
        if isinstance(instance, HasProcess) and instance.pid is not None:
            # It may have died meanwhile.
            with suppress(psutil.Error):
                # What it shares with others would not be free without it.
                size_bytes += psutil.Process(instance.pid).memory_full_info().uss
    return size_bytes
