"""Runs sets of cases against a running server: asks, has the answers matched, counts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from trivet.server.evaluation.answer import Answer
from trivet.server.evaluation.asking import Endpoint, ModelAsker
from trivet.server.evaluation.bounded import BoundedChecks
from trivet.server.evaluation.case import Case, GoldenSet
from trivet.server.evaluation.config import EvaluationConfig
from trivet.server.evaluation.faults import JudgeFault, SetFault
from trivet.server.evaluation.harness import Harness
from trivet.server.evaluation.history import History
from trivet.server.evaluation.judge import Judge
from trivet.server.evaluation.matchers import Verdict
from trivet.server.evaluation.report import (
    Budget,
    CaseResult,
    JudgeReport,
    Outcome,
    Report,
    quantile,
)

_SHOWN_CHARACTERS = 4000
_MAX_REASON = 600


@dataclass(frozen=True, slots=True)
class Subject:
    """What is evaluated."""

    model: str
    """Perhaps with `@` and a label."""
    version: str = ""
    """A number."""
    digest: str = ""
    """Of its files, where the server told it."""


class Run:
    """One evaluation. Owned by one thread; cases are asked on others."""

    def __init__(
        self,
        endpoint: Endpoint,
        config: EvaluationConfig,
        history: History,
        *,
        harness: Harness | None = None,
        on_case: Callable[[CaseResult], None] = lambda _: None,
    ) -> None:
        """`harness`: what runs the config's tasks of that, if there are any."""
        self._harness = harness
        self._endpoint = endpoint
        self._config = config
        self._history = history
        self._on_case = on_case
        self._checks = BoundedChecks()
        judge = config.judge
        self._judge = None if judge is None else Judge(judge, endpoint, history.votes())

    def evaluate(self, subject: Subject, sets: Sequence[GoldenSet]) -> Report:
        """Raises SetFault where the sets cannot be asked at all. The report is kept."""
        started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        name, version = self._resolved(subject)
        asker = ModelAsker(self._endpoint, name, version)
        passed_before = self._history.ever_passed(name)
        try:
            results = tuple(self._results(asker, sets, passed_before))
            tasks = tuple(self._tasks(name, version))
        finally:
            self._checks.close()
        report = Report(
            name,
            version,
            subject.digest,
            {each.name: each.digest for each in sets},
            started_at,
            results,
            (*self._budgets(results, sets), *tasks),
            self._judged(),
        )
        self._history.add(report)
        return report

    def _resolved(self, subject: Subject) -> tuple[str, str]:
        """The model's own name, and the number of the version that is meant: one for all cases."""
        described = ModelAsker(self._endpoint, subject.model, subject.version).described()
        versions = [str(each) for each in described["versions"]]
        return str(described["name"]), max(versions, key=int)

    def _results(
        self, asker: ModelAsker, sets: Sequence[GoldenSet], passed_before: set[str]
    ) -> Iterator[CaseResult]:
        cases = [case for each in sets for case in each.cases]
        with ThreadPoolExecutor(self._config.concurrency, thread_name_prefix="case") as threads:
            # In order, and only as far ahead as there are threads.
            for case, answer in zip(cases, threads.map(asker.ask, cases), strict=True):
                result = self._result(case, answer, passed_before)
                self._on_case(result)
                yield result

    def _result(self, case: Case, answer: Answer, passed_before: set[str]) -> CaseResult:
        outcome, why = self._outcome(case, answer)
        if outcome is Outcome.FAILED and case.is_regression:
            outcome = Outcome.REGRESSION if case.digest in passed_before else Outcome.KNOWN
        return CaseResult(
            case.set,
            case.id,
            case.digest,
            outcome,
            why[:_MAX_REASON],
            answer.shown[:_SHOWN_CHARACTERS],
            answer.latency_s,
            answer.cost,
        )

    def _outcome(self, case: Case, answer: Answer) -> tuple[Outcome, str]:
        if answer.error:
            return Outcome.FAILED, answer.error
        question, faults = _question(case), []
        for matcher in case.expect:
            try:
                verdict = matcher.check(question, answer, self)
            except (SetFault, JudgeFault) as fault:
                return Outcome.ERROR, f"{case.place}: {fault}"
            if not verdict.passed:
                faults.append(verdict.why)
        return (Outcome.FAILED, "; ".join(faults)) if faults else (Outcome.PASSED, "")

    def _budgets(
        self, results: Sequence[CaseResult], sets: Sequence[GoldenSet]
    ) -> Iterator[Budget]:
        config = self._config
        of_regressions = {case.digest for s in sets for case in s.cases if case.is_regression}
        counted = [each for each in results if each.digest not in of_regressions]
        if counted:
            passed = sum(each.outcome is Outcome.PASSED for each in counted)
            rate = passed / len(counted)
            yield Budget("the part of cases that pass", config.min_pass_rate, rate, is_least=True)
        if config.max_p95_ms != float("inf"):
            p95_ms = quantile([each.latency_s for each in results], 0.95) * 1000
            yield Budget("p95 of the latency in ms", config.max_p95_ms, p95_ms)
        if config.max_cost_per_1k != float("inf"):
            cost = sum(each.cost for each in results) / max(1, len(results)) * 1000
            yield Budget("the cost of 1,000 cases", config.max_cost_per_1k, cost)

    def _tasks(self, name: str, version: str) -> Iterator[Budget]:
        """What the harness finds. Raises SetFault."""
        for task in self._config.tasks:
            assert self._harness is not None, "it is there where there are tasks"
            value = self._harness.value(task, name, version, self._config.concurrency)
            yield Budget(task.told, task.at_least, value, is_least=True)

    def _judged(self) -> JudgeReport | None:
        if self._judge is None:
            return None
        figures = self._judge.figures
        return JudgeReport(
            figures.votes, figures.cached, figures.tokens, figures.cost, figures.agreement
        )

    # -- Helpers -------------------------------------------------------------------------------

    def matches(self, pattern: str, text: str) -> bool:
        """See Helpers."""
        return self._checks.matches(pattern, text)

    def schema_fault(self, schema: Mapping[str, Any], value: Any) -> str:
        """See Helpers."""
        return self._checks.schema_fault(schema, value)

    def similarity(self, model: str, texts: tuple[str, str]) -> float:
        """See Helpers."""
        try:
            body = {"model": model, "input": list(texts)}
            reply = self._endpoint.ask("POST", "/v1/embeddings", body)
            if reply.fault:
                raise SetFault(f"embedding model '{model}': {reply.fault}")
            first, second = (np.array(each["embedding"]) for each in reply.document["data"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise SetFault(f"embedding model '{model}' gives no embeddings: {error}") from None
        lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
        return float(first @ second) / lengths if lengths else 0.0

    def verdict(self, rubric: str, question: str, answer: str, reference: str) -> Verdict:
        """See Helpers."""
        if self._judge is None:
            raise SetFault("there is no judge; name one in [judge] of eval.toml, or with --config")
        return self._judge.verdict(rubric, question, answer, reference)


def _question(case: Case) -> str:
    if case.prompt:
        return case.prompt
    said = [str(each.get("content") or "") for each in case.messages if each.get("role") == "user"]
    return said[-1] if said else ""
