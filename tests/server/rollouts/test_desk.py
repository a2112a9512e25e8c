"""Labels, splits and feedback by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from release_site import SIGNATURE, Site

from trivet.backends.api import (
    Cancelled,
    InferRequest,
    InferResponse,
    InvalidRequest,
    NotFound,
    Tensor,
)
from trivet.server.models.traffic import parse_traffic
from trivet.server.rollouts.arms import Arm
from trivet.server.rollouts.experiments import MOST_OUTCOMES, Experiments
from trivet.server.rollouts.feedback import Answered
from trivet.server.rollouts.journal import FileJournal
from trivet.server.rollouts.refusals import is_refusal

ONE = Tensor.of("z", np.ones(1, np.float32))
HALVES = {"labels": {"a": 1, "b": 2}, "split": {"a": 50, "b": 50}, "sticky": ["header:x-user"]}
WRONG: dict[str, tuple[Mapping[str, Any], str]] = {
    "a key": ({"label": {}}, "traffic has no 'label'; did you mean 'labels'"),
    "what is not loaded": ({"labels": {"a": 3}}, "version 3 of model 'm' is not loaded"),
    "a sum": ({"split": {"1": 60, "2": 60}}, "sum to 120; make them 100"),
    "a source": ({"sticky": ["body:x"]}, "sticky has 'body:x'"),
    "a roll-out": ({"rollout": {}}, "traffic has no 'rollout'"),
}


async def two(journal: FileJournal | None = None) -> Site:
    """A site without a policy, whose versions 1 and 2 serve."""
    site = await Site.open(journal, policy=None)
    site.config.version_policy.all.SetInParent()
    site.drop(1, 2)
    return site


async def test_what_is_set_counts_until_it_is_reset() -> None:
    site = await two()
    site.traffic = parse_traffic("[labels]\nold = 1")
    site.load()
    told = site.desk.set_traffic("m", HALVES)
    assert told["labels"] == {"a": 1, "b": 2}
    assert told["split"] == {"a": 50.0, "b": 50.0}
    assert site.asked(10) == {1: 5, 2: 5}
    site.load()
    assert site.asked(10) == {1: 5, 2: 5}

    assert site.desk.set_traffic("m", None)["labels"] == {"old": 1}
    assert site.asked(10) == {2: 10}


async def test_what_is_set_outlives_the_server(tmp_path: Path) -> None:
    first = await two(FileJournal(tmp_path))
    first.desk.set_traffic("m", HALVES, "somebody")
    await first.rollouts.close()
    second = await two(FileJournal(tmp_path))

    assert second.asked(10) == {1: 5, 2: 5}
    history = second.desk.rollout_history("m")
    assert [(each["event"], each["by"]) for each in history] == [("traffic", "somebody")]
    await second.rollouts.close()


@pytest.mark.parametrize("name", WRONG)
async def test_what_is_wrong_is_named_and_changes_nothing(name: str) -> None:
    site = await two()
    document, text = WRONG[name]
    with pytest.raises(InvalidRequest, match=text):
        site.desk.set_traffic("m", document)

    assert site.desk.traffic("m")["labels"] == {}


async def test_while_a_version_is_rolled_out_nobody_else_shares_out() -> None:
    site = await Site.open()
    site.drop(1)
    site.drop(2)
    with pytest.raises(InvalidRequest, match="version 2 of model 'm' is being rolled out"):
        site.desk.set_traffic("m", HALVES)


async def test_feedback_reaches_the_arm_that_answered() -> None:
    site = await two()
    site.desk.set_traffic("m", HALVES)
    for number in range(300):
        admitted = site.registry.routers.resolve("m", None)
        assert admitted.watch is not None
        admitted.watch.observed(request(f"r{number}"), Silent()).finish()
        value = admitted.version + (number % 7) / 10
        site.desk.report(f"r{number}", "score", value)

    told = site.desk.traffic("m")
    assert {name: arm["outcomes"]["score"]["count"] for name, arm in told["arms"].items()} == {
        "a": 150,
        "b": 150,
    }
    assert told["differences"]["score"]["b"]["low"] > 0.9
    assert told["differences"]["score"]["b"]["chance"] < 1e-6
    with pytest.raises(NotFound, match="request 'r300' is not known here"):
        site.desk.report("r300", "score", 1.0)
    with pytest.raises(InvalidRequest, match="a finite number, got nan"):
        site.desk.report("r0", "score", float("nan"))
    with pytest.raises(InvalidRequest, match="'name' says what is reported"):
        site.desk.report("r0", "", 1.0)


async def test_clients_fill_no_memory_and_spoil_no_mean_with_feedback() -> None:
    site = await two()
    site.desk.set_traffic("m", HALVES)
    long = "r" * 4096
    admitted = site.registry.routers.resolve("m", None)
    assert admitted.watch is not None
    admitted.watch.observed(request(long), Silent()).finish()
    for number in range(MOST_OUTCOMES):
        site.desk.report(long, f"score-{number}", 1.0)
    with pytest.raises(InvalidRequest, match="'one-more' is one name too many: 32 are known"):
        site.desk.report(long, "one-more", 1.0)
    with pytest.raises(InvalidRequest, match=r"at most 1e\+12, got 1e\+300"):
        site.desk.report(long, "score-1", 1e300)

    site.desk.report(long, "score-1", 3.0)
    assert site.experiments.arm("m", admitted.version).outcomes_of("score-1").mean == 2.0


async def test_a_model_that_is_not_shared_out_is_not_watched() -> None:
    site = await two()

    assert site.registry.routers.resolve("m", None).watch is None
    site.desk.set_traffic("m", HALVES)
    assert site.registry.routers.resolve("m", 1).watch is None


def test_only_so_many_requests_are_remembered() -> None:
    answered: Answered[int] = Answered(2)
    for number in range(3):
        answered.remember(str(number), number)

    assert answered.arm_of("2") == 2
    with pytest.raises(NotFound):
        answered.arm_of("0")


def test_a_request_is_counted_once_and_not_where_its_client_left() -> None:
    arm = Arm("m", 1, Answered())
    arm.is_looked_at = True
    one, gone = (arm.observed(request(name), Silent()) for name in ("a", ""))
    one.send(InferResponse("m", 1, "a", []), final=False)
    one.finish()
    one.finish()
    gone.fail(Cancelled("its client left"))

    assert (arm.num_requests, arm.num_errors) == (1, 0)
    assert arm.take()["error"] == [0.0]
    assert arm.take() == {}


@pytest.mark.parametrize(("inputs", "counted"), [({}, 1), ({"z": ONE}, 0)])
async def test_what_no_version_takes_is_its_client_s_fault(
    inputs: dict[str, Tensor], counted: int
) -> None:
    """The models here take no inputs: one that refuses such a request is worse, and what has one is
    for none of them."""
    site = await two()
    site.desk.set_traffic("m", HALVES)
    admitted = site.registry.routers.resolve("m", None)
    assert admitted.watch is not None
    sink = admitted.watch.observed(InferRequest("m", None, "r", inputs), Silent())
    sink.fail(InvalidRequest("it is not taken"))

    assert site.experiments.arm("m", admitted.version).num_errors == counted


async def test_nothing_is_said_of_means_before_there_are_numbers() -> None:
    site = await two()
    site.desk.set_traffic("m", HALVES)
    first = site.experiments.arm("m", 1)
    first.reported("clicked", 1.0)
    told = site.desk.traffic("m")

    assert told["differences"]["clicked"]["b"]["mean"] is None
    assert told["arms"]["a"]["outcomes"]["clicked"] == {"count": 1, "mean": 1.0}
    assert told["arms"]["b"]["outcomes"].get("clicked", {"mean": None})["mean"] is None


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I\N{RIGHT SINGLE QUOTATION MARK}m unable to do so", True),
        ("Sorry, I cannot.", True),
        ("As an AI, I have no opinion", True),
        ("I can help with that.", False),
        ("The capital is Paris. I'm sorry for the delay.", False),
        ("", False),
    ],
)
def test_refusals_by_their_first_words(text: str, refuses: bool) -> None:
    assert is_refusal(text) is refuses


def test_arms_have_the_names_of_the_split() -> None:
    assert Experiments().arms("m") == {}


class Silent:
    """A sink that nobody listens to."""

    def send(self, response: InferResponse, *, final: bool) -> None:
        """Ignored."""

    def finish(self) -> None:
        """Ignored."""

    def fail(self, error: Exception) -> None:
        """Ignored."""


def request(name: str) -> InferRequest:
    assert not SIGNATURE.inputs
    return InferRequest(id=name, model_name="m", model_version=None, inputs={})
