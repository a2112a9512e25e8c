"""Loads and wakes that wait for memory. Owned by the event loop."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from trivet.backends.api import LoadFailed
from trivet.server.models.sleeping.budget import Sizes


@dataclass(slots=True, eq=False)
class Claim:
    """What somebody wants. It is his from when it is granted until he gives it up."""

    sizes: Sizes
    priority: int
    is_wanted: Callable[[], bool]
    """Whether anybody still waits for what it is for."""
    is_urgent: Callable[[], bool] = lambda: False
    """Whether a model that computes waits for it, and frees nothing before it has it."""
    require: Callable[[], None] = lambda: None
    """Raises LoadFailed where waiting is in vain."""
    number: int = 0
    granted: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class NotWanted(Exception):
    """Whoever waited for it has left."""


class Claims:
    """The highest priority first, and of these who came first. Nobody is served before him: a
    large model would never find its memory free."""

    def __init__(self) -> None:
        self._waiting: list[Claim] = []
        self._numbers = itertools.count()
        self.granted: list[Claim] = []
        """What is held by those who have not become residents yet."""

    @contextmanager
    def held(self, claim: Claim) -> Iterator[None]:
        """It waits, and then has it, until the end of this."""
        claim.number = next(self._numbers)
        self._waiting.append(claim)
        try:
            yield
        finally:
            for claims in (self._waiting, self.granted):
                if claim in claims:
                    claims.remove(claim)

    def urgent(self) -> list[Claim]:
        """Those that others cannot be waited for with."""
        return [claim for claim in self._waiting if claim.is_urgent() and claim.is_wanted()]

    def first(self) -> Claim | None:
        """Who is to be served next. Those for whom nobody waits any more are sent away."""
        for claim in list(self._waiting):
            if not claim.is_wanted():
                self._waiting.remove(claim)
                claim.granted.set_exception(NotWanted())
        return min(self._waiting, key=lambda each: (-each.priority, each.number), default=None)

    def is_refused(self, claim: Claim) -> bool:
        """Sends it away where it could wait for ever, and others behind it."""
        try:
            claim.require()
        except LoadFailed as error:
            self._waiting.remove(claim)
            claim.granted.set_exception(error)
            return True
        return False

    def grant(self, claim: Claim) -> None:
        """It is his."""
        self._waiting.remove(claim)
        self.granted.append(claim)
        claim.granted.set_result(None)
