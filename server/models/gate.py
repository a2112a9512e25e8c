"""The gate before a version's traffic: it gets none, and no label but `candidate`, before a report
for exactly its files has passed. Owned by the event loop.

Who decides about traffic asks `gate`; who loads has `direct` say who is a candidate.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from trivet.server.evaluation.demand import Demand
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.registry import Registry

log = logging.getLogger(__name__)
OTHER_CONFIG = "its config does not lie in its folder, so that no report can be of it"
NOT_YET = "its evaluation has not ended yet"


class GateState(Enum):
    """Where a version stands."""

    OPEN = "open"
    """It passed, or nothing is asked of it."""
    WAITING = "waiting"
    """Its evaluation runs, or will."""
    CLOSED = "closed"
    """Its evaluation has not passed, or broke off."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of a version."""

    state: GateState
    why: str = ""
    """Where it is not open."""

    @property
    def passed(self) -> bool:
        """Whether it may get traffic."""
        return self.state is GateState.OPEN


OPEN = Verdict(GateState.OPEN)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An evaluation that is to be run."""

    key: str
    version: int
    demand: Demand

    @property
    def digest(self) -> str:
        """Of the version's files."""
        return self.demand.digests[self.version]


class Gatekeeper:
    """Knows what each version's gate says."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._plans: dict[str, LoadPlan] = {}
        """Of the models that have a gate: as they were last asked for."""
        self._broken: dict[tuple[str, str], str] = {}
        """By key and digest: why an evaluation gave no report."""
        self.on_wanted: Callable[[Wanted], None] = lambda _: None
        """Told of an evaluation that has to be run, whenever there is one."""

    def gate(self, key: str, version: int) -> Verdict:
        """Whether a version may get traffic, or why it may not (yet)."""
        plan = self._plans.get(key)
        if plan is None or plan.demand is None or version not in plan.demand.digests:
            return OPEN
        return self._verdict(plan, plan.demand, version)

    def admits(self, key: str, version: int) -> str | None:
        """The same in a word, for who shares out traffic step by step: empty, it may have some; a
        text, why not; None: that is not known yet."""
        verdict = self.gate(key, version)
        return None if verdict.state is GateState.WAITING else verdict.why

    def direct(self, plan: LoadPlan) -> LoadPlan:
        """The plan with its candidates named, and with a version beside them that may take the
        traffic meanwhile, where there is one."""
        key, demand = plan.folder.key, plan.demand
        if demand is None:
            self._plans.pop(key, None)
            return plan
        self._plans[key] = plan
        verdicts = {each: self._verdict(plan, demand, each) for each in plan.versions}
        candidates = {each: told.why for each, told in verdicts.items() if not told.passed}
        versions = plan.versions
        if len(candidates) == len(versions):
            # What serves now goes on, whatever version_policy says; after a restart, what passed.
            # What a roll-out has taken back does not return by having passed its gate once.
            kept_out = {*versions, *plan.withheld}
            others = [each for each in demand.digests if each not in kept_out]
            stable = [each for each in others if self._verdict(plan, demand, each).passed]
            versions = tuple(sorted({*versions, *stable[-1:]}))
        return replace(plan, versions=versions, traffic=plan.traffic.with_candidates(candidates))

    def loaded(self, key: str, version: int) -> None:
        """A version is ready: if it is a candidate without a report, its evaluation may begin."""
        plan = self._plans.get(key)
        if plan is None or plan.demand is None or version not in plan.demand.digests:
            return
        if plan.is_overridden:
            return
        demand = plan.demand
        is_known = version in demand.faults or (key, demand.digests[version]) in self._broken
        if not is_known:
            self.on_wanted(Wanted(key, version, demand))

    def is_wanted(self, wanted: Wanted) -> bool:
        """Whether the evaluation is still of what is there."""
        plan = self._plans.get(wanted.key)
        if plan is None or plan.demand is None:
            return False
        is_there = wanted.version in self._registry.models.get(wanted.key, {})
        return is_there and plan.demand.digests.get(wanted.version) == wanted.digest

    def broke_off(self, wanted: Wanted, why: str) -> None:
        """An evaluation gave no report. It is tried again when files change, or the server starts
        anew."""
        self._broken[wanted.key, wanted.digest] = why
        log.error("model '%s' version %d stays a candidate: %s", wanted.key, wanted.version, why)

    def lacks_report(self, wanted: Wanted) -> bool:
        """Whether nothing came of an evaluation, although what it is of is still there."""
        if not self.is_wanted(wanted) or (wanted.key, wanted.digest) in self._broken:
            return False
        demand = self._plans[wanted.key].demand
        return demand is not None and wanted.version not in demand.faults

    def plan_of(self, key: str) -> LoadPlan | None:
        """What a model with a gate was last asked for."""
        return self._plans.get(key)

    def _verdict(self, plan: LoadPlan, demand: Demand, version: int) -> Verdict:
        if self._is_in_service(plan, version):
            return OPEN
        if plan.is_overridden:
            return Verdict(GateState.CLOSED, OTHER_CONFIG)
        if demand.has_passed(version):
            return OPEN
        if version in demand.faults:
            return Verdict(GateState.CLOSED, f"it has not passed: {demand.faults[version]}")
        broken = self._broken.get((plan.folder.key, demand.digests[version]))
        if broken is not None:
            return Verdict(GateState.CLOSED, broken)
        return Verdict(GateState.WAITING, NOT_YET)

    def _is_in_service(self, plan: LoadPlan, version: int) -> bool:
        """Whether it takes traffic already, of the same files: a gate that comes later, or a set
        that grows, takes nothing from anybody."""
        key = plan.folder.key
        model = self._registry.models.get(key, {}).get(version)
        if model is None or version in self._registry.candidates(key):
            return False
        return model.source is not None and model.source == plan.source_of(version)
