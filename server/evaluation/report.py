"""What an evaluation found: frozen values, and their form as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

FORMAT = 1


class Outcome(StrEnum):
    """How one case went."""

    PASSED = "passed"
    FAILED = "failed"
    KNOWN = "known"
    """A case of a regression set that fails, and has never passed: it is in nobody's way."""
    REGRESSION = "regression"
    """One that fails, and has passed before."""
    ERROR = "error"
    """It could not be told: a judge or a matcher gave no verdict."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case."""

    set: str
    id: str
    digest: str
    outcome: Outcome
    why: str = ""
    answer: str = ""
    """As far as it is shown."""
    latency_s: float = 0.0
    cost: float = 0.0

    @property
    def key(self) -> str:
        """By which a case is known from one evaluation to the next."""
        return f"{self.set}/{self.id}"


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound that all cases together keep or break."""

    name: str
    limit: float
    value: float
    is_least: bool = False
    """Whether the value must be at least so much."""

    @property
    def is_kept(self) -> bool:
        """Whether it is."""
        return self.value >= self.limit if self.is_least else self.value <= self.limit


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """What the judge took, and how much its votes agreed."""

    votes: int
    cached: int
    tokens: int
    cost: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Report:
    """One evaluation of one version."""

    model: str
    version: str
    digest: str
    """Of the version's files, its config and the sets; empty where nobody told it."""
    sets: Mapping[str, str]
    """The sets' digests, by name."""
    started_at: str
    """As ISO 8601."""
    cases: tuple[CaseResult, ...]
    budgets: tuple[Budget, ...]
    judge: JudgeReport | None = None

    @property
    def faults(self) -> list[str]:
        """Why it has not passed, a sentence each; empty: it has."""
        found = []
        for outcome, told in (
            (Outcome.REGRESSION, "passed before and fail now"),
            (Outcome.ERROR, "could not be told"),
        ):
            cases = [case for case in self.cases if case.outcome is outcome]
            if cases:
                first = f"{cases[0].key}: {cases[0].why}"
                found.append(f"{len(cases)} case(s) {told}, the first is {first}")
        for budget in self.budgets:
            if not budget.is_kept:
                bound = "at least" if budget.is_least else "at most"
                found.append(f"{budget.name} is {budget.value:g}, and {bound} {budget.limit:g}")
        return found

    @property
    def passed(self) -> bool:
        """Whether the version is good enough."""
        return not self.faults

    def count(self, *outcomes: Outcome) -> int:
        """How many cases ended so."""
        return sum(case.outcome in outcomes for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        return {"format": FORMAT, "passed": self.passed, "faults": self.faults, **asdict(self)}

    @classmethod
    def of_json(cls, given: Any) -> Self:
        """Of what `to_json` gave. Raises ValueError for anything else."""
        try:
            if given["format"] != FORMAT:
                raise ValueError(f"the report is of format {given['format']}, not {FORMAT}")
            cases = [{**case, "outcome": Outcome(case["outcome"])} for case in given["cases"]]
            judge = given["judge"]
            return cls(
                str(given["model"]),
                str(given["version"]),
                str(given["digest"]),
                {str(name): str(digest) for name, digest in given["sets"].items()},
                str(given["started_at"]),
                tuple(CaseResult(**case) for case in cases),
                tuple(Budget(**budget) for budget in given["budgets"]),
                JudgeReport(**judge) if judge is not None else None,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is no report: {error}") from None


@dataclass(frozen=True, slots=True)
class Change:
    """A case that ended otherwise than in the evaluation before."""

    case: CaseResult
    before: CaseResult | None
    """None: it is new."""


def changes(report: Report, before: Report | None) -> list[Change]:
    """The cases that are new or ended otherwise, in order."""
    if before is None:
        return []
    known = {case.key: case for case in before.cases}
    return [
        Change(case, known.get(case.key))
        for case in report.cases
        if (old := known.get(case.key)) is None or old.outcome is not case.outcome
    ]


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest value that so large a part of them do not exceed; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
