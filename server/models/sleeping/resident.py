"""A loaded version, as far as its memory goes."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from trivet.backends.api import Histogram, ModelNotReady, Sleeps
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.model import Model
from trivet.server.models.sleeping.budget import Sizes, total
from trivet.server.models.sleeping.policy import Awake, Terms

WAKE_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
TAGS = ("weights", "kv_cache")
"""What vLLM wakes apart. Here all of it comes back at once, when the last is asked for."""


class Rest(Enum):
    """Where a version is between awake and asleep."""

    AWAKE = "awake"
    FALLING = "falling asleep"
    """It ends what it has begun, and frees its memory."""
    ASLEEP = "asleep"
    WAITING = "waiting for memory"
    """To wake."""
    WAKING = "waking"


@dataclass(slots=True, eq=False)
class Resident:
    """Owned by the Residency."""

    plan: LoadPlan
    model: Model
    sleeps: Sleeps
    sizes: Sizes
    """What it takes while it is awake, as it was measured when it was loaded."""
    terms: Terms
    used_s: float
    woke_s: float
    rest: Rest = Rest.AWAKE
    falling: "asyncio.Task[None] | None" = None
    """What puts it to sleep, or did the last time."""
    num_taken: int = 0
    """As it was last seen."""
    wake_took_s: float = 0.0
    is_wanted: bool = False
    """A request came while it fell asleep."""
    is_urgent: bool = False
    """A model that computes waits for an answer of it."""
    is_over: bool = False
    """It is unloaded."""
    tags: set[str] = field(default_factory=set)
    """Of those that were put to sleep by hand: what has not been asked for again."""
    error: ModelNotReady | None = None
    """Why it did not wake."""
    retry_s: float = 0.0
    """How long after that it is tried again,"""
    retry: asyncio.TimerHandle | None = None
    num_wakes: int = 0
    num_failures: int = 0
    """Of waking."""
    wakes_s: Histogram = field(default_factory=lambda: Histogram(WAKE_BOUNDS_S))

    @property
    def label(self) -> str:
        """For log lines and error texts."""
        return f"model '{self.model.key}' version {self.model.version}"

    @property
    def has_memory(self) -> bool:
        """Whether it takes any. One that wakes has a claim to it."""
        return self.rest in (Rest.AWAKE, Rest.FALLING)

    def has_begun(self) -> bool:
        """Whether something of it computes: more has come than waits."""
        return self.sleeps.use().has_begun

    def look(self, now_s: float) -> None:
        """Sees whether it is used."""
        use = self.sleeps.use()
        if use.is_busy or use.num_taken != self.num_taken:
            self.num_taken, self.used_s = use.num_taken, now_s

    def takes(self, cpu_bytes: int, residents: Iterable["Resident"]) -> None:
        """Says so in its statistics, with what it takes of GPUs, unless it was loaded again: both
        of them count there, and the figures are the newer one's."""
        own = self.model.statistics
        newest = [each for each in residents if each.model.statistics is own][-1:]
        if newest in ([], [self]):
            own.takes(cpu_bytes, self.model.gpu_memory.taken)

    def seen(self, index: int, *, is_held: bool) -> Awake:
        """For the policy. `is_held`: it must not sleep now."""
        use = self.sleeps.use()
        return Awake(
            index,
            self.sizes,
            self.terms.priority,
            self.used_s,
            self.woke_s,
            self.wake_took_s,
            use.is_busy,
            is_held or use.is_bound or self.terms.is_pinned,
        )


def pinned_beside(key: str, residents: Iterable[Resident]) -> dict[str, Sizes]:
    """What those take that are pinned, by model. Of the model `key` itself they are versions that
    have their memory until what is loaded replaces them, or beside it."""
    found: dict[str, Sizes] = {}
    for each in residents:
        own = each.model.key
        is_here = own != key or each.has_memory or each.rest is Rest.WAKING
        if each.terms.is_pinned and is_here:
            found[own] = total((found.get(own, {}), each.sizes))
    return found
