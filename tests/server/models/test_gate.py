"""A version whose gate is required: a candidate without traffic, until its report has passed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluation_site import chat, write_set

from trivet.backends.api import InvalidConfig, ModelNotReady, Signature
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.evaluation.demand import Demands
from trivet.server.evaluation.history import History
from trivet.server.evaluation.report import Budget, Report
from trivet.server.models.dispatcher import RequestDispatcher
from trivet.server.models.gate import Gatekeeper, GateState, Wanted
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.model import Model
from trivet.server.models.registry import Registry
from trivet.server.models.routing import Choice
from trivet.server.models.traffic import Traffic, parse_traffic
from trivet.server.models.validate import validate
from trivet.server.repository.scan import scan
from trivet.server.scheduling.statistics import ModelStatistics

REQUIRED = 'gate = "required"\nsets = ["evals/golden.jsonl"]\n'


class Ready:
    """An executor."""

    def is_ready(self) -> bool:
        return True


class Site:
    """A model's folder, and what serves of it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "repository"
        self.model = self.root / "m"
        self.demands = Demands(folder / "state")
        self.registry = Registry()
        self.keeper = Gatekeeper(self.registry)
        self.wanted: list[Wanted] = []
        self.keeper.on_wanted = self.wanted.append
        write_set(
            self.model / "evals" / "golden.jsonl", chat("a", "b", {"match": "exact", "value": "c"})
        )
        (self.model / "eval.toml").write_text(REQUIRED)

    def drop(self, version: int, content: str = "") -> None:
        (self.model / str(version)).mkdir()
        (self.model / str(version) / "model.onnx").write_text(content or f"version {version}")

    def plan(self, *versions: int, traffic: Traffic | None = None) -> LoadPlan:
        folder = scan([self.root]).models["m"]
        demand = self.demands.of(folder, sorted(folder.versions))
        chosen = versions or (max(folder.versions),)
        return LoadPlan(folder, ModelConfig(), chosen, traffic=traffic or Traffic(), demand=demand)

    def load(self, *versions: int, traffic: Traffic | None = None) -> None:
        """As the lifecycle does it."""
        asked = self.plan(*versions, traffic=traffic)
        plan = self.keeper.direct(asked)
        self.registry.withhold("m", plan.traffic.candidates)
        for version in plan.versions:
            if version not in self.registry.models.get("m", {}):
                self.registry.publish(self.made(version, plan))
            self.keeper.loaded("m", version)
        self.registry.settle_traffic("m", self.keeper.direct(asked).traffic)
        for version in self.registry.models["m"].keys() - set(plan.versions):
            self.registry.withdraw("m", version)

    def made(self, version: int, plan: LoadPlan) -> Model:
        executor: Any = Ready()
        signature = Signature({}, {}, 0, False)
        statistics = ModelStatistics("m", version)
        source = plan.source_of(version)
        return Model("m", version, ModelConfig(), signature, executor, statistics, source)

    def report(self, version: int, *, passes: bool = True) -> None:
        demand = self.plan().demand
        assert demand is not None
        budget = Budget("the part of cases that pass", 1.0, 1.0 if passes else 0.5, is_least=True)
        at = f"2026-01-01T00:00:0{version}"
        report = Report("m", str(version), demand.digests[version], {}, at, (), (budget,))
        History(self.demands.history_dir).add(report)

    def asked(self, version: int | str | None = None) -> tuple[int, Choice]:
        found = self.registry.routers.resolve("m", version)
        return found.version, found.choice


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.drop(1)
    return site


def test_a_first_version_waits_for_its_report(site: Site) -> None:
    site.load()
    with pytest.raises(ModelNotReady, match="version 1: its evaluation has not ended yet"):
        site.asked()

    assert site.asked(1) == (1, Choice.CANDIDATE)
    assert site.asked("candidate") == (1, Choice.CANDIDATE)
    assert [(each.key, each.version) for each in site.wanted] == [("m", 1)]
    assert site.keeper.gate("m", 1).state is GateState.WAITING
    assert site.keeper.admits("m", 1) is None

    site.report(1)
    site.load()
    assert site.keeper.admits("m", 1) == ""
    assert site.asked() == (1, Choice.NEWEST)
    assert site.keeper.gate("m", 1).passed


def test_a_model_that_would_ask_a_candidate_is_not_ready(site: Site) -> None:
    control: Any = None  # nothing is loaded
    dispatcher = RequestDispatcher(site.registry, control)
    site.load()
    assert not dispatcher.is_ready("m", 1)

    site.report(1)
    site.load()
    assert dispatcher.is_ready("m", 1)


def test_a_version_that_a_roll_out_took_back_takes_nobody_s_place(site: Site) -> None:
    site.drop(2)
    site.drop(3)
    site.report(2)
    asked = replace(site.plan(1, 3), withheld={2: "rolled back: errors"})

    assert site.keeper.direct(asked).versions == (1, 3)
    assert site.keeper.direct(replace(asked, withheld={})).versions == (1, 2, 3)


def test_the_version_before_goes_on_whatever_the_policy_says(site: Site) -> None:
    site.report(1)
    site.load()
    site.drop(2)
    site.load()

    assert site.asked() == (1, Choice.NEWEST)
    assert site.asked("candidate") == (2, Choice.CANDIDATE)
    site.report(2)
    site.load()
    assert site.asked() == (2, Choice.NEWEST)
    assert set(site.registry.models["m"]) == {2}


def test_a_report_that_has_not_passed_closes_the_gate_with_its_reason(site: Site) -> None:
    site.report(1)
    site.load()
    site.drop(2)
    site.report(2, passes=False)
    site.load()
    verdict = site.keeper.gate("m", 2)

    assert site.asked() == (1, Choice.NEWEST)
    assert verdict.state is GateState.CLOSED
    assert "the part of cases that pass is 0.5, and at least 1" in verdict.why
    assert site.wanted == [], "it is not tried again until its files change"


def test_after_a_restart_it_is_as_before(site: Site, tmp_path: Path) -> None:
    site.report(1)
    site.drop(2)
    site.report(2, passes=False)
    site.load()

    assert site.asked() == (1, Choice.NEWEST)
    assert site.wanted == []


def test_a_report_of_other_files_is_none(site: Site) -> None:
    site.report(1)
    (site.model / "1" / "model.onnx").write_text("something else")
    site.load()

    assert site.keeper.gate("m", 1).state is GateState.WAITING


def test_a_set_that_grows_takes_nothing_from_who_serves(site: Site) -> None:
    site.report(1)
    site.load()
    more = chat("more", "b", {"match": "exact", "value": "c"})
    write_set(site.model / "evals" / "golden.jsonl", more)
    site.load()

    assert site.asked() == (1, Choice.NEWEST)
    assert [each.version for each in site.wanted] == [1], "but it is evaluated"


def test_a_candidate_has_no_label_and_no_part_of_a_split(site: Site) -> None:
    site.report(1)
    site.drop(2)
    traffic = parse_traffic("[labels]\nstable = 1\nnext = 2\n[split]\nstable = 50\nnext = 50")
    site.load(1, 2, traffic=traffic)

    assert {site.asked() for _ in range(50)} == {(1, Choice.SPLIT)}
    with pytest.raises(Exception, match="has no version with label 'next' now"):
        site.asked("next")


def test_who_shares_traffic_out_otherwise_sends_nothing_to_a_candidate(site: Site) -> None:
    site.report(1)
    site.drop(2)
    site.load(1, 2)
    split = "[labels]\nstable = 1\nnext = 2\n[split]\nstable = 50\nnext = 50"
    site.registry.share_out("m", parse_traffic(split))

    assert {site.asked() for _ in range(50)} == {(1, Choice.SPLIT)}


def test_candidate_is_a_label_that_no_file_gives() -> None:
    with pytest.raises(InvalidConfig, match="'candidate' is what a version is called"):
        parse_traffic("[labels]\ncandidate = 1")


def test_an_evaluation_that_breaks_off_is_told_and_not_tried_again(site: Site) -> None:
    site.load()
    site.keeper.broke_off(site.wanted[0], "its evaluation broke off: no matcher 'x'")
    site.load()

    assert site.keeper.gate("m", 1).why == "its evaluation broke off: no matcher 'x'"
    assert len(site.wanted) == 1


def test_a_config_that_a_client_sent_has_no_report(site: Site) -> None:
    site.report(1)
    plan = site.keeper.direct(replace(site.plan(), is_overridden=True))

    assert "does not lie in its folder" in plan.traffic.candidates[1]


def test_a_broken_eval_toml_is_named(site: Site) -> None:
    (site.model / "eval.toml").write_text('gate = "requried"')
    with pytest.raises(InvalidConfig, match=r"eval\.toml: gate is 'required' or 'off'"):
        site.plan()


def test_what_is_wrong_with_a_set_is_found_without_a_server(site: Site) -> None:
    case = chat("a", "b", {"match": "exakt", "value": "c"})
    write_set(site.model / "evals" / "golden.jsonl", case)
    found = [each for each in validate([site.root]) if each.code == "evaluation"]

    assert "there is no matcher 'exakt'; did you mean 'exact'?" in found[0].message
    assert found[0].path == "m/eval.toml"
