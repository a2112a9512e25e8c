"""Executors that give their instances back and go on with others later: models that sleep."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from trivet.backends.api.backend import Instance
from trivet.backends.api.errors import ModelNotReady

OnWanted = Callable[[tuple[str, ...]], None]
"""Told of a request that waits for instances: the models on whose behalf it comes, the first first.
They wait for it, too."""


@dataclass(frozen=True, slots=True)
class Use:
    """What an executor does at one moment."""

    num_taken: int
    """How many requests it has taken so far: another number says that it was used meanwhile."""
    is_busy: bool
    """Whether a request is in it that has not ended."""
    has_begun: bool
    """Whether it computes one of them."""
    is_bound: bool = False
    """Whether its instances know something for clients that others would not: open sequences."""


@runtime_checkable
class Sleeps(Protocol):
    """An Executor that may be without instances. Requests that come meanwhile wait as those do for
    which there is no idle one: in its queue, with its limits, their deadlines and cancellations.
    Called on the event loop."""

    @property
    def is_asleep(self) -> bool:
        """Whether it has no instances, or is about to give them back."""

    def use(self) -> Use:
        """Asked a few times a second."""

    async def sleep(self, on_wanted: OnWanted) -> None:
        """Begins nothing more, lets what has begun end, and frees the instances. `on_wanted` is
        called for each request that comes from now on, until it wakes."""

    def wake(self, instances: Sequence[tuple[str, Instance]]) -> None:
        """Owns these instances, and goes on. They are like those that it had."""

    def stay_asleep(self, error: ModelNotReady) -> None:
        """There are no instances to be had now: what waits ends with the error, and until it wakes
        it is not ready, for that reason."""
