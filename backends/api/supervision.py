"""What is told of an instance or executor whose work is done in a process that may die."""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Protocol, TypeGuard, runtime_checkable


class Cause(Enum):
    """Why a process ended, as the metric's label says it."""

    SIGNAL = "signal"
    EXIT = "exit"
    OUT_OF_MEMORY = "out_of_memory"
    SILENT = "silent"
    """No sign of life: killed."""
    TIMEOUT = "timeout"
    """Computed for too long: killed."""


@runtime_checkable
class Supervised(Protocol):
    """Started again by itself when its process dies. Called on the event loop: never blocks."""

    def trouble(self) -> str:
        """Why it cannot compute now; empty while it can."""

    def deaths(self) -> Mapping[Cause, int]:
        """How often its process has died, by cause."""


def _is_supervised(part: object) -> TypeGuard[Supervised]:
    """By its class, which Python remembers: each part is asked with each metrics page."""
    return issubclass(type(part), Supervised)


def trouble_of(parts: Iterable[object]) -> str:
    """The first trouble of those that are supervised; empty without one."""
    troubles = (part.trouble() for part in parts if _is_supervised(part))
    return next(filter(None, troubles), "")


def deaths_of(parts: Iterable[object]) -> Counter[Cause]:
    """The deaths of those that are supervised."""
    total: Counter[Cause] = Counter()
    for part in parts:
        if _is_supervised(part):
            total.update(part.deaths())
    return total
