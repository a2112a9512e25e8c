"""The rate limiter: instances of all models share countable resources; who ran least goes first.

Owned by the event loop. Decides only: executors ask for a permit before each batch and return it
after it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from trivet.backends.api import InvalidConfig, Placement
from trivet.protos.model_config_pb2 import ModelConfig

ResourceKey = tuple[str, int | None]
"""A resource's name and its device; None for a global one."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one instance needs to run."""

    resources: Mapping[ResourceKey, int]
    priority: int = 1
    """How often others may run for each run of this instance: 2 lets it run half as often."""


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """The `--rate-limit-resource` options: how much there is of each resource."""

    counts: Mapping[ResourceKey, int] = field(default_factory=dict)
    """Under device None: of a global one, or on each device."""

    @classmethod
    def parse(cls, given: Iterable[str]) -> Self:
        """From NAME:COUNT and NAME:COUNT:DEVICE. Raises InvalidConfig."""
        counts: dict[ResourceKey, int] = {}
        for text in given:
            name, *numbers = text.split(":")
            is_whole = 1 <= len(numbers) <= 2 and all(each.isdigit() for each in numbers)
            if not name or not is_whole:
                raise InvalidConfig(
                    f"--rate-limit-resource {text}: give NAME:COUNT for a resource of every device "
                    "or a global one, or NAME:COUNT:DEVICE; both are numbers from 0"
                )
            counts[name, int(numbers[1]) if len(numbers) == 2 else None] = int(numbers[0])
        return cls(counts)

    def count(self, key: ResourceKey) -> int | None:
        """How much the options give of a resource; None where they say nothing."""
        return self.counts.get(key, self.counts.get((key[0], None)))

    def check(self, config: ModelConfig, placements: Iterable[Placement]) -> None:
        """Raises InvalidConfig for an instance that could never run."""
        for name, need in needs_of(config, placements).items():
            for key, wanted in need.resources.items():
                limit = self.count(key)
                if limit is not None and limit < wanted:
                    raise InvalidConfig(
                        f"model '{config.name}': resource count for '{key[0]}' is limited to "
                        f"{limit} (--rate-limit-resource), but instance '{name}' needs {wanted}"
                    )


def needs_of(config: ModelConfig, placements: Iterable[Placement]) -> dict[str, Need]:
    """What each instance of a config needs, by the instance's name. An ensemble needs nothing: its
    steps are limited."""
    if config.HasField("ensemble_scheduling"):
        return {}
    groups = {group.name: group.rate_limiter for group in config.instance_group}
    needs: dict[str, Need] = {}
    for placement in placements:
        limiter = groups[placement.name.rpartition("_")[0]]
        resources: dict[ResourceKey, int] = {
            (each.name, None if getattr(each, "global") else placement.device_id): each.count
            for each in limiter.resources
        }
        needs[placement.name] = Need(resources, max(1, limiter.priority))
    return needs


class Permit:
    """One instance's right to run a batch: asked for, granted, returned."""

    __slots__ = ("_limiter", "is_granted", "is_waiting", "need", "num_runs", "on_granted")

    def __init__(self, limiter: "RateLimiter", need: Need) -> None:
        self._limiter = limiter
        self.need = need
        self.num_runs = 0
        self.is_granted = False
        self.is_waiting = False
        self.on_granted: Callable[[], None] = _ignore
        """Called when a permit that had to wait is granted."""

    @property
    def rank(self) -> int:
        """The lowest one goes first."""
        return self.num_runs * self.need.priority

    def ask(self) -> bool:
        """Whether it is granted now; if not, `on_granted` will be called unless it is withdrawn."""
        if not self.is_granted:
            self._limiter.ask(self)
        return self.is_granted

    def withdraw(self) -> None:
        """Wants it no more, granted or not; nothing has run."""
        self._limiter.free(self)
        self._limiter.grant()

    def finished(self) -> None:
        """Returns a granted permit after a run. Others get what it held when this one, which may
        want to run on, has said whether it does: by `ask` or `withdraw`."""
        self.num_runs += 1
        self._limiter.free(self)

    def close(self) -> None:
        """The instance is gone."""
        self.withdraw()
        self._limiter.dismiss(self)


def _ignore() -> None:
    """Nobody waits."""


class RateLimiter:
    """The resources of one server and the instances that wait for them."""

    def __init__(self, limits: ResourceLimits) -> None:
        self._limits = limits
        self._permits: list[Permit] = []
        self._waiting: list[Permit] = []
        self._used: dict[ResourceKey, int] = {}

    def admit(self, needs: Mapping[str, Need]) -> dict[str, Permit]:
        """Permits for the instances of one model, by name."""
        permits = {name: Permit(self, need) for name, need in needs.items()}
        self._permits += permits.values()
        return permits

    def dismiss(self, permit: Permit) -> None:
        """See Permit.close."""
        self._permits.remove(permit)

    def total(self, key: ResourceKey) -> int:
        """How much there is of a resource: as the options say, else the most that one instance
        asks for."""
        limit = self._limits.count(key)
        if limit is not None:
            return limit
        return max((permit.need.resources.get(key, 0) for permit in self._permits), default=0)

    def ask(self, permit: Permit) -> None:
        """See Permit."""
        if not permit.is_waiting:
            permit.is_waiting = True
            self._waiting.append(permit)
        self.grant(asking=permit)

    def free(self, permit: Permit) -> None:
        """Takes back what a permit holds, or its place among those that wait."""
        if permit.is_waiting:
            permit.is_waiting = False
            self._waiting.remove(permit)
        elif permit.is_granted:
            permit.is_granted = False
            for key, count in permit.need.resources.items():
                self._used[key] -= count

    def grant(self, asking: Permit | None = None) -> None:
        """Grants what can be granted in the order of rank. Who has to wait has what he needs kept
        for him: those behind get the rest, so that one that needs much gets its turn."""
        taken = dict(self._used)
        for permit in sorted(self._waiting, key=lambda each: each.rank):
            needed = permit.need.resources
            has_all = all(taken.get(key, 0) + n <= self.total(key) for key, n in needed.items())
            for key, count in needed.items():
                taken[key] = taken.get(key, 0) + count
                if has_all:
                    self._used[key] = self._used.get(key, 0) + count
            if not has_all:
                continue
            self._waiting.remove(permit)
            permit.is_waiting, permit.is_granted = False, True
            if permit is not asking:
                permit.on_granted()
