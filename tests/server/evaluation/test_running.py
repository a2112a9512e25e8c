"""Sets that are run against a server: outcomes, budgets, judges, what is remembered."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluation_site import Site, chat, open_site, write_set

from trivet.server.evaluation import judge
from trivet.server.evaluation.asking import Endpoint
from trivet.server.evaluation.case import read_set
from trivet.server.evaluation.config import NOTHING_ASKED, EvaluationConfig, JudgeConfig
from trivet.server.evaluation.faults import SetFault
from trivet.server.evaluation.history import History
from trivet.server.evaluation.pages import as_html, as_junit, as_text
from trivet.server.evaluation.report import Outcome, Report
from trivet.server.evaluation.running import Run, Subject

ALOUD = {"match": "exact", "value": "HELLO"}
JUDGED = {"match": "judge", "rubric": "Be loud."}


@pytest.fixture
def site() -> Iterator[Site]:
    with open_site() as opened:
        opened.say = str.upper
        yield opened


class Runner:
    """Evaluations that share a history."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.folder = folder
        self.history = History(folder / "history")
        self.config = NOTHING_ASKED

    def run(self, *cases: Any, regressions: tuple[Any, ...] = (), **changes: Any) -> Report:
        config = replace(self.config, **changes)
        sets = [read_set(write_set(self.folder / "golden.jsonl", *cases))] if cases else []
        if regressions:
            path = write_set(self.folder / "regressions.jsonl", *regressions)
            sets.append(read_set(path, is_regression=True))
        run = Run(Endpoint(self.site.url), config, self.history)
        return run.evaluate(Subject("m"), sets)

    def judged(self, **fields: Any) -> EvaluationConfig:
        return replace(self.config, judge=JudgeConfig("judge", **fields))


@pytest.fixture
def runner(site: Site, tmp_path: Path) -> Runner:
    return Runner(site, tmp_path)


def test_all_cases_are_asked_of_one_version_by_its_number(runner: Runner) -> None:
    tensors = {"id": "t", "inputs": {"x": [1, 2]}, "expect": {"match": "numeric", "output": "y",
               "value": [2, 4]}}  # fmt: skip
    prompt = {"id": "p", "prompt": "hello", "expect": ALOUD}
    report = runner.run(chat("c", "hello", ALOUD), prompt, tensors)

    assert report.passed, report.faults
    assert (report.model, report.version) == ("m", "2")
    paths = [path for path, _, headers in runner.site.asked]
    assert "/v2/models/m/versions/2/infer" in paths
    chats = [headers for path, _, headers in runner.site.asked if path.startswith("/v1")]
    assert {headers["x-model-version"] for headers in chats} == {"2"}


def test_too_few_that_pass_and_what_they_cost_are_named(runner: Runner) -> None:
    runner.site.headers = {"x-trivet-cost": "0.25"}
    cases = [chat("good", "hello", ALOUD), chat("bad", "hullo", ALOUD)]
    report = runner.run(*cases, max_cost_per_1k=100.0, max_p95_ms=0.0)

    assert [case.outcome for case in report.cases] == [Outcome.PASSED, Outcome.FAILED]
    assert report.cases[1].why == "expected 'HELLO', got 'HULLO'"
    assert "the part of cases that pass is 0.5, and at least 1" in report.faults
    assert "the cost of 1,000 cases is 250, and at most 100" in report.faults
    assert any("p95 of the latency in ms" in fault for fault in report.faults)
    assert runner.run(*cases, min_pass_rate=0.5).passed


def test_a_case_that_ever_passed_may_not_fail(runner: Runner) -> None:
    case, never = chat("once", "hello", ALOUD), chat("never", "bye", ALOUD)
    first = runner.run(regressions=(case, never))
    runner.site.say = lambda text: text
    second = runner.run(regressions=(case, never))

    assert first.passed, "what never passed is in nobody's way"
    assert [each.outcome for each in first.cases] == [Outcome.PASSED, Outcome.KNOWN]
    assert [each.outcome for each in second.cases] == [Outcome.REGRESSION, Outcome.KNOWN]
    assert "1 case(s) passed before and fail now, the first is regressions/once" in second.faults[0]


def test_similarity_is_asked_of_an_embedding_model(runner: Runner) -> None:
    expect = {"match": "similarity", "model": "e", "value": "HALLO", "at_least": 0.99}

    assert runner.run(chat("c", "hello", expect)).passed


def test_a_tool_is_called(runner: Runner) -> None:
    runner.site.tool = {"name": "ask", "given": {"desk": "a"}}
    expect = {"match": "tool_call", "name": "ask", "arguments": {"desk": "a"}}

    assert runner.run(chat("c", "hello", expect)).passed


def test_a_judge_votes_and_is_remembered(runner: Runner) -> None:
    verdicts = iter(["pass", "fail", "pass"])
    runner.site.judge = lambda _: f'Well. {{"verdict": "{next(verdicts)}", "reason": "r"}}'
    runner.config = runner.judged(price_per_1k_tokens=2.0)
    first, second = (runner.run(chat("c", "hello", JUDGED)) for _ in range(2))

    assert first.passed
    assert first.judge is not None
    assert first.judge.votes == 3
    assert first.judge.cost == pytest.approx(0.6)
    assert math.isclose(first.judge.agreement, 2 / 3)
    assert second.judge is not None
    assert (second.judge.votes, second.judge.cached) == (0, 3)


def test_texts_change_places_from_vote_to_vote(runner: Runner) -> None:
    """A judge that always likes the first of two gives the answer two of three votes, or one."""
    runner.site.judge = lambda _: '{"verdict": "A"}'
    expect = {**JUDGED, "reference": "hello!"}
    runner.config = runner.judged(votes=2)
    report = runner.run(chat("c", "hello", expect))

    assert not report.passed, "one vote of two is not most"
    assert "1 of 2 votes for it" in report.cases[0].why
    assert report.judge is not None
    assert report.judge.agreement == 0.5


@pytest.mark.parametrize("said", ["I like it.", '{"verdict": "maybe"}', '{"verdict": {}}', "{]}"])
def test_a_judge_that_answers_nonsense_is_named_and_nothing_passes(
    said: str, runner: Runner
) -> None:
    runner.site.judge = lambda _: said
    runner.config = runner.judged()
    report = runner.run(chat("other", "hello", ALOUD), chat("c", "hello", JUDGED))

    assert [case.outcome for case in report.cases] == [Outcome.PASSED, Outcome.ERROR]
    assert "judge 'judge' answers nonsense, 2 times" in report.faults[0]
    assert runner.history.reports("m") == [report], "nothing is lost"


def test_a_judge_that_is_not_there_is_named(runner: Runner) -> None:
    runner.config = runner.judged(url="http://127.0.0.1:9/v1")
    report = runner.run(chat("c", "hello", JUDGED))

    assert "no judge answers at http://127.0.0.1:9/v1" in report.faults[0]


def test_no_server_is_a_fault_of_the_whole(tmp_path: Path) -> None:
    sets = [read_set(write_set(tmp_path / "s.jsonl", chat("c", "hello", ALOUD)))]
    run = Run(Endpoint("http://127.0.0.1:9"), NOTHING_ASKED, History(tmp_path / "h"))
    with pytest.raises(SetFault, match="no server answers at"):
        run.evaluate(Subject("m"), sets)


def test_reports_show_what_changed_and_escape_what_models_wrote(runner: Runner) -> None:
    runner.site.say = lambda text: f"<script>{text}</script>"
    before = runner.run(chat("c", "hello", ALOUD))
    runner.site.say = str.upper
    report = replace(runner.run(chat("c", "hello", ALOUD), chat("new", "x", ALOUD)), version="3")
    text, page, junit = as_text(report, before), as_html(report, before), as_junit(report)

    assert "changed: golden/c failed -> passed" in text
    assert "new: golden/new failed" in text
    assert "<script>" not in page
    assert "&lt;script&gt;hello" in page, "the answer before"
    assert '<testsuite name="golden" tests="2" failures="1" errors="0">' in junit
    assert Report.of_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_report_cut_in_half_is_passed_over(runner: Runner) -> None:
    report = runner.run(chat("c", "hello", ALOUD))
    (path,) = (runner.folder / "history" / "reports" / "m").glob("*.json")
    path.write_text(path.read_text()[:40])

    assert report.passed
    assert runner.history.reports("m") == []


def test_the_report_of_what_serves_outlives_many_others(tmp_path: Path) -> None:
    history = History(tmp_path)
    for number in range(60):
        digest = "serving" if number == 0 else ""
        at = f"2026-01-01T00:00:{number:02}"
        history.add(Report("m", "1", digest, {}, at, (), ()))

    assert len(history.reports("m")) == 50
    assert history.with_digest("m", "serving") is not None


def test_the_oldest_votes_go_where_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "MAX_VOTES_KEPT", 4)
    path = tmp_path / "votes.jsonl"
    cache = judge.VoteCache(path)
    for number in range(5):
        cache.put(str(number), {"vote": "pass", "reason": ""})
    kept = judge.VoteCache(path)

    assert [number for number in range(5) if kept.find(str(number))] == [3, 4]
    assert len(path.read_text().splitlines()) == 2
