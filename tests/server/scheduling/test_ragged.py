"""Ragged batches: the row, its borders in every form, and the way back."""

import numpy as np
import pytest
from google.protobuf import text_format

from trivet.backends.api import BackendFailed, Batch, CheckedRequest, Signature, Tensor
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.protos.pool import POOL
from trivet.server.repository.check_ragged import ragged_faults
from trivet.server.scheduling.joining import join_key_of
from trivet.server.scheduling.ragged import Ragged

BASE = """
max_batch_size: 8
input [
  { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true },
  { name: "PLAIN" data_type: TYPE_FP32 dims: [ 1 ] }
]
output [{ name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }]
"""
BATCH_INPUT = """
batch_input { kind: %s target_name: "BORDERS" data_type: TYPE_%s source_input: "IN" }
"""
BATCH_OUTPUT = """
batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "OUT" source_input: "IN" }
"""


def config_of(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig(name="m"), descriptor_pool=POOL)


def request_of(*shape: int) -> CheckedRequest:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    inputs = {name: Tensor.of(name, values[:, :n]) for name, n in (("IN", None), ("PLAIN", 1))}
    return CheckedRequest("m", 1, "", inputs, batch_size=shape[0])


def batch_of(text: str, *shapes: tuple[int, ...]) -> Batch:
    ragged = Ragged.from_config(config_of(BASE + text))
    assert ragged is not None
    return ragged.batch([request_of(*shape) for shape in shapes], batching=True)


def test_a_ragged_input_is_one_row_and_others_are_joined_as_ever() -> None:
    batch = batch_of("", (1, 3), (2, 2), (1, 1))
    row, plain = batch.gather("IN"), batch.gather("PLAIN")
    assert row is not None
    assert plain is not None
    assert row.tolist() == [0, 1, 2, 0, 1, 2, 3, 0]
    assert plain.shape == (4, 1)


def test_a_lone_request_is_a_row_too_without_a_copy() -> None:
    batch = batch_of("", (1, 3))
    row = batch.gather("IN")
    assert row is not None
    assert row.shape == (3,)
    assert np.shares_memory(row, batch.requests[0].inputs["IN"].numpy())
    assert batch.gathered_bytes == 0


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("BATCH_ELEMENT_COUNT", [3, 4, 1]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT", [3, 7, 8]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", [0, 3, 7, 8]),
        ("BATCH_ITEM_SHAPE", [[3], [2], [2], [1]]),
        ("BATCH_ITEM_SHAPE_FLATTEN", [3, 2, 2, 1]),
    ],
)
@pytest.mark.parametrize(("word", "dtype"), [("INT32", np.int32), ("FP32", np.float32)])
def test_batch_inputs_say_where_requests_are(
    kind: str, expected: list[object], word: str, dtype: type
) -> None:
    borders = batch_of(BATCH_INPUT % (kind, word), (1, 3), (2, 2), (1, 1)).gather("BORDERS")
    assert borders is not None
    assert borders.tolist() == expected
    assert borders.dtype == np.dtype(dtype)


def test_the_largest_count_is_told_by_a_shape() -> None:
    text = BATCH_INPUT % ("BATCH_MAX_ELEMENT_COUNT_AS_SHAPE", "FP32")
    borders = batch_of(text, (1, 3), (2, 2), (1, 1)).gather("BORDERS")
    assert borders is not None
    assert borders.shape == (4,)


def test_an_item_shape_has_all_dimensions_but_the_batch_s() -> None:
    text = BASE.replace("dims: [ -1 ] allow", "dims: [ -1, -1 ] allow")
    ragged = Ragged.from_config(config_of(text + BATCH_INPUT % ("BATCH_ITEM_SHAPE", "INT32")))
    assert ragged is not None
    requests = [request_of(2, 3, 1), request_of(1, 2, 2)]
    borders = ragged.batch(requests, batching=True).gather("BORDERS")
    assert borders is not None
    assert borders.tolist() == [[3, 1], [3, 1], [2, 2]]


def test_a_batch_output_goes_back_in_the_shapes_of_its_input() -> None:
    batch = batch_of(BATCH_OUTPUT, (1, 3), (2, 2))
    batch.scatter("OUT", np.arange(7, dtype=np.float32))
    values = [outputs[0].numpy().tolist() for outputs in batch.outputs]
    assert values == [[[0, 1, 2]], [[3, 4], [5, 6]]]


def test_a_batch_output_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(BackendFailed, match="has 6 elements, but the shapes of input 'IN'"):
        batch_of(BATCH_OUTPUT, (1, 3), (2, 2)).scatter("OUT", np.zeros(6))


def test_requests_of_different_lengths_are_joined_only_where_that_is_allowed() -> None:
    short, long = request_of(1, 2), request_of(1, 5)
    assert join_key_of(Signature.from_config(config_of(BASE))) is None
    strict = join_key_of(
        Signature.from_config(config_of(BASE.replace("allow_ragged_batch: true", "")))
    )
    assert strict is not None
    assert strict(short) != strict(long)
    mixed = join_key_of(
        Signature.from_config(config_of(BASE.replace("dims: [ 1 ]", "dims: [ -1 ]")))
    )
    assert mixed is not None
    assert mixed(short) == mixed(long)


def test_a_model_without_them_needs_no_other_batches() -> None:
    assert Ragged.from_config(config_of(BASE.replace("allow_ragged_batch: true", ""))) is None


GOOD = BASE + BATCH_INPUT % ("BATCH_ELEMENT_COUNT", "FP32") + BATCH_OUTPUT


def test_a_right_config_has_no_fault() -> None:
    assert list(ragged_faults(config_of(GOOD))) == []


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("max_batch_size: 8", "", "needs a max_batch_size of 1 or more"),
        ('"IN" data_type: TYPE_FP32', '"IN" data_type: TYPE_STRING', "must hold numbers"),
        ("allow_ragged", "reshape { shape: [ -1 ] } allow_ragged", "cannot have a reshape"),
        ('"BORDERS" data_type: TYPE_FP32', '"BORDERS" data_type: TYPE_BOOL', "got TYPE_BOOL"),
        ('target_name: "BORDERS"', "", "exactly one target_name, got []"),
        ('source_input: "IN"', "", "exactly one source_input, got []"),
        ('source_input: "IN"', 'source_input: "X"', "source_input 'X' is no input"),
        ('target_name: "OUT"', 'target_name: "X"', "target_name 'X' is no output"),
        ('target_name: "BORDERS"', 'target_name: "PLAIN"', "must not be in input too"),
        (
            "max_batch_size: 8",
            'max_batch_size: 8 parameters { key: "isolation" value { string_value: "process" } }',
            "not offered with parameter isolation",
        ),
    ],
)
def test_a_wrong_config_is_named(right: str, wrong: str, fault: str) -> None:
    assert right in GOOD
    faults = list(ragged_faults(config_of(GOOD.replace(right, wrong, 1))))
    assert any(fault in each for each in faults), faults
