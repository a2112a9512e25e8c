"""Who sleeps when: which of those that are awake give their memory to others. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from trivet.backends.api import InvalidConfig, parameter
from trivet.backends.api.config import seconds
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.sleeping.budget import Sizes

LEAST_TURN_S = 2.0
"""A version that is asked all the time keeps its memory for so long while others wait for some,"""
TURN_OF_WAKE = 4.0
"""or for so many times what it took to wake: of all time, a fifth at most goes into waking."""
_PRIORITY = re.compile("-?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a model's config says of its memory."""

    is_pinned: bool = False
    """Whether it never sleeps by itself."""
    priority: int = 0
    """The higher, the longer it stays awake, and the sooner it gets memory."""
    idle_s: float = 0.0
    """It sleeps when it was not used for so long; 0: not for that."""

    @classmethod
    def read(cls, config: ModelConfig, idle_s: float) -> Self:
        """`idle_s`: where the config does not say. Raises InvalidConfig."""
        pinned = parameter(config, "memory_pinned", "false")
        if pinned not in ("true", "false"):
            raise InvalidConfig(
                f"model '{config.name}': parameter memory_pinned is '{pinned}'; true or false"
            )
        priority = parameter(config, "memory_priority", "0")
        if not _PRIORITY.fullmatch(priority):
            raise InvalidConfig(
                f"model '{config.name}': parameter memory_priority is '{priority[:40]}', but must "
                "be a whole number of at most nine digits"
            )
        own = parameter(config, "idle_unload_s")
        never = own in ("0", "0.0")
        limit_s = 0.0 if never else seconds(config, "idle_unload_s", idle_s)
        return cls(pinned == "true", int(priority), limit_s)


@dataclass(frozen=True, slots=True)
class Awake:
    """A version that has memory, as it is at one moment."""

    index: int
    """Which one, for who asks."""
    sizes: Sizes = field(default_factory=dict)
    priority: int = 0
    used_s: float = 0.0
    """When it was last seen used."""
    woke_s: float = 0.0
    wake_took_s: float = 0.0
    is_busy: bool = False
    is_bound: bool = False
    """Whether it must not sleep, whatever it does."""

    @property
    def turn_s(self) -> float:
        """How long it keeps its memory at least, while it is busy."""
        return max(LEAST_TURN_S, TURN_OF_WAKE * self.wake_took_s)

    def may_make_way(self, priority: int, now_s: float) -> bool:
        """Whether one of this priority may have its memory although it is asked all the time."""
        return self.priority <= priority and now_s - self.woke_s >= self.turn_s


def who_sleeps(
    lacking: Sizes, awake: Iterable[Awake], now_s: float, *, priority: int | None = None
) -> Sequence[Awake]:
    """Those that give back what is lacking: of the lowest priority first, and of these the ones
    that were not used for longest. Nobody, where all of them together would not do.

    `priority`: of somebody who waits for it. Then, too, those that are busy and have had their
    turn, and are no more important: they end what they do first, and what comes waits. None: nobody
    waits, and only those that are idle count.
    """
    able = [each for each in awake if not each.is_bound and _has_any(each.sizes, lacking)]
    idle = sorted((a for a in able if not a.is_busy), key=lambda a: (a.priority, a.used_s))
    busy: list[Awake] = []
    if priority is not None:
        busy = [a for a in able if a.is_busy and a.may_make_way(priority, now_s)]
        busy.sort(key=lambda a: (a.priority, a.woke_s))
    missing, chosen = dict(lacking), []
    for each in (*idle, *busy):
        if not any(size > 0 for size in missing.values()):
            break
        if _has_any(each.sizes, missing):
            chosen.append(each)
            missing = {place: size - each.sizes.get(place, 0) for place, size in missing.items()}
    return [] if any(size > 0 for size in missing.values()) else chosen


def _has_any(sizes: Sizes, lacking: Sizes) -> bool:
    return any(size > 0 and sizes.get(place, 0) > 0 for place, size in lacking.items())
