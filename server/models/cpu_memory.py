"""Memory of models that run in processes of their own; of others nobody can tell it apart."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol, runtime_checkable

import psutil


@runtime_checkable
class HasProcess(Protocol):
    """An instance in a process of its own."""

    @property
    def pid(self) -> int | None:
        """None while there is none."""


def memory_of_processes(instances: Iterable[object]) -> int:
    """The resident bytes of the instances' processes together."""
    size_bytes = 0
    for instance in instances:
        if isinstance(instance, HasProcess) and instance.pid is not None:
            # It may have died meanwhile.
            with suppress(psutil.Error):
                size_bytes += psutil.Process(instance.pid).memory_info().rss
    return size_bytes
