"""One roll-out, from its start to its verdict. Pure: it is told what happened and how much time
went by, and says how much of the traffic is the candidate's.

    WAITING ──► RUNNING ◄──► PAUSED        promoted: PROMOTED
       │           │            │          worse, crashed or not loaded: ROLLED_BACK (reason)
       └───────────┴────────────┴────────► taken back by somebody: ABORTED (reason)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from trivet.backends.api import InvalidRequest
from trivet.server.models.traffic import WHOLE
from trivet.server.rollouts.evidence import NONE, Counted, Evidence
from trivet.server.rollouts.guards import Guard, Kind
from trivet.server.rollouts.policy import Policy

MOST_AT_ONCE_S = 2.0
"""Longer than that between two looks, the process has slept: nothing was baked meanwhile."""


class Phase(StrEnum):
    """Where a roll-out is."""

    WAITING = "waiting"
    """The candidate is being loaded, or its gate is asked."""
    RUNNING = "running"
    PAUSED = "paused"
    """It stays in its step, and is still taken back if it is worse."""
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    ABORTED = "aborted"


ENDED = frozenset({Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED})


@dataclass(frozen=True, slots=True)
class Window:
    """What happened since the last look."""

    requests: int = 0
    """Of the candidate."""
    seen: Mapping[str, tuple[Counted, Counted]] = field(default_factory=dict)
    """By guard: the candidate's and the stable version's."""


@dataclass(slots=True)
class Watched:
    """One guard's figures."""

    guard: Guard
    evidence: Evidence
    candidate: Counted = NONE
    stable: Counted = NONE

    def add(self, candidate: Counted, stable: Counted) -> None:
        """A window's."""
        self.candidate += candidate
        self.stable += stable
        if self.guard.kind is Kind.BOUND:
            self.evidence.bound(candidate, self.guard.tolerance)
        else:
            self.evidence.compare(candidate, stable, self.guard.event_tolerance)

    def told(self) -> str:
        """Why the candidate is taken back."""
        mine = f"{self.guard.name}: {_told(self.candidate)} of the candidate's requests"
        if self.guard.kind is Kind.BOUND:
            return f"{mine} differ, and {100 * self.guard.tolerance:.4g} % may"
        return f"{mine} against {_told(self.stable)} of the stable version's{self._meaning()}"

    def _meaning(self) -> str:
        guard = self.guard
        allowed = f" by more than {100 * guard.tolerance:.4g} %" if guard.tolerance else ""
        if guard.kind is Kind.QUANTILE:
            return f" were above the {100 * guard.quantile:g}th percentile of that one{allowed}"
        if guard.kind is Kind.OUTCOME:
            return f" were below the mean of that one{allowed}"
        return f", which is worse{allowed}" if allowed else ""


def _told(counted: Counted) -> str:
    return f"{counted.events} of {counted.requests} ({100 * counted.rate:.3g} %)"


class Rollout:
    """Owned by whoever tells it what happens."""

    __slots__ = (
        "_policy", "_watched", "candidate", "elapsed_s", "phase", "reason", "samples", "stable",
        "step",
    )  # fmt: skip

    def __init__(self, policy: Policy, stable: int, candidate: int) -> None:
        self._policy = policy
        self.stable = stable
        self.candidate = candidate
        self.phase = Phase.WAITING
        self.reason = ""
        self.step = 0
        self.elapsed_s = 0.0
        """In this step."""
        self.samples = 0
        """Of the candidate, in this step."""
        span_s = policy.bake_s * len(policy.steps)
        self._watched = {guard.name: Watched(guard, Evidence(span_s)) for guard in policy.guards}

    @property
    def policy(self) -> Policy:
        """What it goes by."""
        return self._policy

    @property
    def weight(self) -> int:
        """The candidate's part of the requests, in hundredths of a percent."""
        if self.phase is Phase.PROMOTED:
            return WHOLE
        return self._policy.steps[self.step] if self.phase in (Phase.RUNNING, Phase.PAUSED) else 0

    @property
    def is_ended(self) -> bool:
        """Whether there is a verdict."""
        return self.phase in ENDED

    @property
    def figures(self) -> Mapping[str, Watched]:
        """By guard."""
        return self._watched

    def begin(self) -> None:
        """The candidate serves, and its gate has let it through."""
        if self.phase is Phase.WAITING:
            self.phase = Phase.RUNNING

    def look(self, passed_s: float, window: Window) -> None:
        """So much time went by, and that happened: the next step, or a verdict, may be due."""
        if self.phase not in (Phase.RUNNING, Phase.PAUSED):
            return
        passed_s = min(max(passed_s, 0.0), MOST_AT_ONCE_S)
        for name, (candidate, stable) in window.seen.items():
            watched = self._watched[name]
            watched.evidence.passed(passed_s)
            watched.add(candidate, stable)
            if watched.evidence.chance < self._policy.alarm:
                self._end(Phase.ROLLED_BACK, watched.told())
                return
        if self.phase is Phase.RUNNING:
            self.elapsed_s += passed_s
            self.samples += window.requests
            self._go_on()

    def _go_on(self) -> None:
        policy = self._policy
        if self.elapsed_s >= policy.bake_s and self.samples >= policy.min_samples:
            if self.step + 1 == len(policy.steps):
                self._end(Phase.PROMOTED, f"passed all {len(policy.steps)} steps")
            else:
                self.step_to(self.step + 1)
        elif self.elapsed_s >= policy.max_step_s:
            share = policy.steps[self.step] / 100
            self._end(
                Phase.ROLLED_BACK,
                f"the step of {share:g} % got {self.samples} of the {policy.min_samples} samples "
                f"that it needs within {policy.max_step_s:g} s",
            )

    def step_to(self, step: int) -> None:
        """Another part of the traffic, from now on."""
        self.step, self.elapsed_s, self.samples = step, 0.0, 0

    def fail(self, reason: str) -> None:
        """The candidate crashed or did not load, or its gate does not let it through."""
        self._end(Phase.ROLLED_BACK, reason)

    def abort(self, reason: str) -> None:
        """Somebody takes it back. Raises InvalidRequest for one that has ended."""
        self._require_open("aborted")
        self._end(Phase.ABORTED, reason)

    def promote(self, reason: str) -> None:
        """Somebody gives it all the traffic. Raises InvalidRequest for one that does not run."""
        self._require_begun("promoted")
        self._end(Phase.PROMOTED, reason)

    def inherit(self, reason: str) -> None:
        """It gets all the traffic, wherever it stands."""
        self._end(Phase.PROMOTED, reason)

    def pause(self) -> None:
        """It stays where it is. Raises InvalidRequest for one that does not run."""
        self._require_begun("paused")
        self.phase = Phase.PAUSED

    def resume(self) -> None:
        """It goes on. Raises InvalidRequest for one that does not run."""
        self._require_begun("resumed")
        self.phase = Phase.RUNNING

    def _require_open(self, verb: str) -> None:
        if self.is_ended:
            raise InvalidRequest(
                f"the roll-out of version {self.candidate} has ended, it was {self.phase}; it "
                f"cannot be {verb}"
            )

    def _require_begun(self, verb: str) -> None:
        self._require_open(verb)
        if self.phase is Phase.WAITING:
            raise InvalidRequest(
                f"version {self.candidate} does not serve yet; its roll-out cannot be {verb}"
            )

    def _end(self, phase: Phase, reason: str) -> None:
        if not self.is_ended:
            self.phase, self.reason = phase, reason

    # -- to go on with it elsewhere ------------------------------------------------------------

    def saved(self) -> dict[str, Any]:
        """How far it is, as JSON has it."""
        return {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "samples": self.samples,
            "guards": {
                name: {
                    "evidence": list(each.evidence.state),
                    "candidate": [each.candidate.requests, each.candidate.events],
                    "stable": [each.stable.requests, each.stable.events],
                }
                for name, each in self._watched.items()
            },
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Goes on from there."""
        self.step = min(int(saved["step"]), len(self._policy.steps) - 1)
        self.elapsed_s, self.samples = float(saved["elapsed_s"]), int(saved["samples"])
        span_s = self._policy.bake_s * len(self._policy.steps)
        for name, figures in saved["guards"].items():
            if (watched := self._watched.get(name)) is not None:
                watched.evidence = Evidence(span_s, figures["evidence"])
                watched.candidate = Counted(*figures["candidate"])
                watched.stable = Counted(*figures["stable"])
