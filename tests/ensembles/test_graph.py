"""Every fault of an ensemble's config is found at load and named: file, step, tensor."""

import time
from itertools import pairwise

import pytest
from ensemble_room import config, ensemble, step
from patience import patience

from trivet.backends.api import DataType, InvalidConfig, ModelNotFound, Signature
from trivet.ensembles.graph import Graph
from trivet.ensembles.reading import check_fields, read_graph
from trivet.server.repository.config import parse_config


class Models:
    """A catalog of configs."""

    def __init__(self, **configs: str) -> None:
        self._configs = configs

    def signature(self, name: str, version: int | str | None) -> Signature:
        if name not in self._configs:
            raise ModelNotFound(f"Request for unknown model: '{name}' is not found")
        return Signature.from_config(parse_config(self._configs[name], name))

    def parts(self, name: str) -> frozenset[str]:
        return frozenset({name})

    def labels(self, name: str, version: int | str | None) -> dict[str, list[str]]:
        return {}


STREAM = config(batch=0, more="") + " model_transaction_policy { decoupled: true }"
MODELS = Models(
    a=config(),
    b=config(),
    small=config(batch=2),
    plain=config(batch=0, more=""),
    wide=config({"IN": "FP32 3"}, {"OUT": "FP32 3"}),
    whole=config({"IN": "INT32 2"}, {"OUT": "INT32 2"}),
    two=config({"IN": "FP32 2", "EXTRA": "FP32 2?"}, {"OUT": "FP32 2", "OTHER": "INT64 1"}),
    text=config({"IN": "FP32 2"}, {"OUT": "BYTES 1"}),
    stream=STREAM,
    stream2=STREAM,
)


def read(text: str) -> Graph:
    given = parse_config(text, "e")
    given.name = "e"
    check_fields(given)
    return read_graph(given, MODELS)


A_TO_B = (step("a", {"IN": "X"}, {"OUT": "T"}), step("b", {"IN": "T"}, {"OUT": "Y"}))


def given(tensor: str = "X", kind: str = "TYPE_FP32", dims: str = "2") -> str:
    return f'input {{ name: "{tensor}" data_type: {kind} dims: [{dims}] }}'


def wanted(tensor: str = "Y", kind: str = "TYPE_FP32", dims: str = "2") -> str:
    return f'output {{ name: "{tensor}" data_type: {kind} dims: [{dims}] }}'


def test_inputs_and_outputs_are_filled_in_from_the_steps() -> None:
    graph = read(ensemble(*A_TO_B))

    spec = graph.signature.inputs["X"]
    assert (list(graph.signature.inputs), spec.datatype, spec.dims) == (["X"], DataType.FP32, (2,))
    assert (list(graph.signature.outputs), graph.signature.max_batch_size) == (["Y"], 8)


def test_a_config_as_triton_has_it_is_taken_unchanged() -> None:
    graph = read(ensemble(*A_TO_B, more=f"max_batch_size: 4 {given()} {wanted()}"))

    assert graph.signature.max_batch_size == 4
    assert [step.model for step in graph.steps] == ["a", "b"]
    assert [step.version for step in graph.steps] == [None, None]


def test_an_ensemble_over_a_decoupled_model_is_decoupled() -> None:
    graph = read(ensemble(step("stream", {"IN": "X"}, {"OUT": "Y"})))

    assert graph.signature.decoupled


FAULTS = {
    "no steps": ('platform: "ensemble" ensemble_scheduling {}', "must specify at least one step"),
    "no scheduling": ('platform: "ensemble"', "must specify at least one step"),
    "instance_group": (
        ensemble(*A_TO_B, more="instance_group { count: 2 }"),
        "instance_group cannot",
    ),
    "optimization": (
        ensemble(*A_TO_B, more="optimization { priority: PRIORITY_MAX }"),
        "optimization cannot be set",
    ),
    "model_warmup": (ensemble(*A_TO_B, more='model_warmup { name: "w" }'), "model_warmup cannot"),
    "unknown model": (
        ensemble(step("nobody", {"IN": "X"}, {"OUT": "Y"})),
        "step 0 (model 'nobody'): model 'nobody' does not serve: Request for unknown model",
    ),
    "no model name": (ensemble(step("", {"IN": "X"}, {"OUT": "Y"})), "model_name is missing"),
    "itself": (ensemble(step("e", {"IN": "X"}, {"OUT": "Y"})), "cannot be a step of itself"),
    "unknown input": (
        ensemble(step("a", {"IN": "X", "NO": "X"}, {"OUT": "Y"})),
        "step 0 (model 'a'): input_map has 'NO', but the model's inputs are ['IN']",
    ),
    "unknown output": (
        ensemble(step("a", {"IN": "X"}, {"NO": "Y"})),
        "output_map has 'NO', but the model's outputs are ['OUT']",
    ),
    "missing input": (
        ensemble(step("two", {"EXTRA": "X"}, {"OUT": "Y"})),
        "lacks the model's required inputs ['IN']",
    ),
    "no outputs": (ensemble(step("a", {"IN": "X"}, {})), "output_map is missing"),
    "missing producer": (
        ensemble(
            step("a", {"IN": "X"}, {"OUT": "T"}), step("b", {"IN": "U"}, {"OUT": "Y"}), more=given()
        ),
        "step 1 (model 'b'): input 'IN' takes 'U', which no step makes",
    ),
    "made twice": (
        ensemble(step("a", {"IN": "X"}, {"OUT": "Y"}), step("b", {"IN": "X"}, {"OUT": "Y"})),
        "step 1 (model 'b'): output_map makes 'Y', which step 0 (model 'a') makes",
    ),
    "made twice by one step": (
        ensemble(step("two", {"IN": "X"}, {"OUT": "Y", "OTHER": "Y"})),
        "output_map makes ensemble tensor 'Y' twice",
    ),
    "makes an input": (
        ensemble(*A_TO_B, step("two", {"IN": "T"}, {"OUT": "X"}), more=given()),
        "step 2 (model 'two'): output_map makes 'X', which is an input of the ensemble",
    ),
    "cycle": (
        ensemble(
            step("two", {"IN": "X", "EXTRA": "U"}, {"OUT": "T"}),
            step("a", {"IN": "T"}, {"OUT": "U"}),
            more=given() + wanted("U"),
        ),
        "the steps form a cycle: step 0 (model 'two') needs ['U'] of step 1 (model 'a'), "
        "step 1 (model 'a') needs ['T'] of step 0 (model 'two')",
    ),
    "type": (
        ensemble(step("a", {"IN": "X"}, {"OUT": "T"}), step("whole", {"IN": "T"}, {"OUT": "Y"})),
        "step 1 (model 'whole'): input 'IN' is INT32, but ensemble tensor 'T' is FP32 "
        "(output 'OUT' of step 0 (model 'a'))",
    ),
    "shape": (
        ensemble(step("a", {"IN": "X"}, {"OUT": "T"}), step("wide", {"IN": "T"}, {"OUT": "Y"})),
        "step 1 (model 'wide'): input 'IN' has shape [-1, 3], but ensemble tensor 'T' has shape "
        "[-1, 2] (output 'OUT' of step 0 (model 'a'))",
    ),
    "input's type": (
        ensemble(*A_TO_B, more="max_batch_size: 8 " + given(kind="TYPE_INT8") + wanted()),
        "input 'IN' is FP32, but ensemble tensor 'X' is INT8 (an input of the ensemble)",
    ),
    "output's type": (
        ensemble(*A_TO_B, more="max_batch_size: 8 " + given() + wanted(kind="TYPE_INT8")),
        "output 'Y' of the ensemble is INT8, but it is FP32 as output 'OUT' of step 1 (model 'b')",
    ),
    "output's shape": (
        ensemble(*A_TO_B, more="max_batch_size: 8 " + given() + wanted(dims="5")),
        "output 'Y' of the ensemble has shape [-1, 5], but it has shape [-1, 2] as output 'OUT'",
    ),
    "unmade output": (
        ensemble(*A_TO_B, more="max_batch_size: 8 " + given() + wanted("Z")),
        "output 'Z' of the ensemble is not made by any step; the steps make ['T', 'Y']",
    ),
    "unused input": (
        ensemble(*A_TO_B, more="max_batch_size: 8 " + given() + given("Z") + wanted()),
        "input 'Z' of the ensemble is not used",
    ),
    "batch size": (
        ensemble(
            step("a", {"IN": "X"}, {"OUT": "T"}),
            step("small", {"IN": "T"}, {"OUT": "Y"}),
            more="max_batch_size: 8 " + given() + wanted(),
        ),
        "step 1 (model 'small'): ensemble 'e' allows maximum batch size 8, but model 'small' only "
        "allows 2",
    ),
    "two streams meet": (
        ensemble(
            step("stream", {"IN": "X"}, {"OUT": "S"}),
            step("stream2", {"IN": "X"}, {"OUT": "T"}),
            step("two", {"IN": "S", "EXTRA": "T"}, {"OUT": "Y"}),
            more=given() + wanted(),
        ),
        "gets responses of two decoupled steps, step 0 (model 'stream') and step 1 (",
    ),
    "unknown setting": (
        ensemble(*A_TO_B, a__wen="any(X)"),
        "parameter 'step.a.wen': a step has no setting 'wen'; there are when, return_if",
    ),
    "merging": (
        ensemble(*A_TO_B, more='parameters { key: "merge_requests" value { string_value: "no" } }'),
        "parameter merge_requests is 'no'; it must be auto, true or false",
    ),
    "unknown step": (ensemble(*A_TO_B, c__when="X"), "there is no step 'c'; the steps are 0 'a'"),
    "which step": (
        ensemble(
            step("a", {"IN": "X"}, {"OUT": "T"}),
            step("a", {"IN": "T"}, {"OUT": "Y"}),
            a__retries="1",
        ),
        "model 'a' is in several steps; give the step's number",
    ),
    "timeout": (
        ensemble(*A_TO_B, a__timeout_ms="soon"),
        "timeout_ms is 'soon'; it must be a number",
    ),
    "retries": (
        ensemble(*A_TO_B, a__retries="11"),
        "retries is '11'; it must be a number from 0 to 10",
    ),
    "unknown tensor": (
        ensemble(*A_TO_B, b__when="max(NOPE) > 1"),
        "step 1 (model 'b'): when is 'max(NOPE) > 1': there is no tensor 'NOPE'",
    ),
    "condition's type": (
        ensemble(*A_TO_B, b__when="T == 'yes'"),
        "compares a number with a text",
    ),
    "condition that runs code": (
        ensemble(*A_TO_B, b__when="__import__('os').system('true')"),
        "is not allowed in a condition",
    ),
    "condition on what comes later": (
        ensemble(*A_TO_B, a__when="max(Y) > 1"),
        "the steps form a cycle",
    ),
    "map of what it does not take": (
        ensemble(*A_TO_B, b__map="X"),
        "map names 'X', which is not in its input_map",
    ),
    "map of no list": (
        ensemble(*A_TO_B, b__map="T"),
        "input 'IN' has shape [-1, 2], but ensemble tensor 'T'",
    ),
    "map of a stream": (
        ensemble(step("stream", {"IN": "X"}, {"OUT": "Y"}), stream__map="X"),
        "map needs one answer per element, and the model is decoupled",
    ),
    "unknown fallback": (
        ensemble(*A_TO_B, b__fallback="nobody"),
        "step 1 (model 'b'): model 'nobody' does not serve",
    ),
    "fallback of other tensors": (
        ensemble(*A_TO_B, b__fallback="wide"),
        "step 1 (model 'b'): fallback 'wide' does not take and give the same tensors as 'b'",
    ),
}


@pytest.mark.more_of("R16")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_refused_with_file_and_place(fault: str) -> None:
    text, message = FAULTS[fault]

    with pytest.raises(InvalidConfig) as raised:
        read(text)

    assert message in raised.value.message
    assert raised.value.message.startswith("e/config.pbtxt: ")


def chain(count: int, *, is_closed: bool) -> str:
    """So many steps, each behind the one before; closed: the first behind the last."""
    names = [f"T{number}" for number in range(count + 1)]
    names[0], names[-1] = ("X", "Y") if not is_closed else (names[0], names[0])
    return ensemble(*(step("a", {"IN": a}, {"OUT": b}) for a, b in pairwise(names)))


@pytest.mark.more_of("R16")
def test_ten_thousand_steps_are_refused_at_once() -> None:
    started_s = time.monotonic()
    with pytest.raises(InvalidConfig, match="10000 steps; at most 1024"):
        read(chain(10_000, is_closed=False))
    assert time.monotonic() - started_s < patience(5)


def test_as_many_steps_as_allowed_are_read() -> None:
    assert len(read(chain(1024, is_closed=False)).steps) == 1024


@pytest.mark.more_of("R16")
def test_a_long_circle_is_told_in_short() -> None:
    with pytest.raises(InvalidConfig, match="and so on, 1000 steps in all") as caught:
        read(chain(1000, is_closed=True))
    assert len(caught.value.message) < 2000


def test_only_what_is_needed_for_an_output_runs() -> None:
    graph = read(
        ensemble(
            step("a", {"IN": "X"}, {"OUT": "T"}),
            step("b", {"IN": "T"}, {"OUT": "Y"}),
            step("two", {"IN": "T"}, {"OUT": "Z"}),
        )
    )

    assert graph.needed_for(("Y",)) == {0, 1}
    assert graph.needed_for(("Z",)) == {0, 2}
    assert graph.needed_for(()) == {0, 1, 2}


def test_steps_of_other_batching_get_or_lose_a_dimension() -> None:
    graph = read(
        ensemble(
            step("a", {"IN": "X"}, {"OUT": "T"}),
            step("plain", {"IN": "T"}, {"OUT": "U"}),
            step("b", {"IN": "U"}, {"OUT": "Y"}),
            more="max_batch_size: 8 " + given() + wanted(),
        )
    )

    assert [step.inputs[0].shift for step in graph.steps] == [0, -1, 1]
