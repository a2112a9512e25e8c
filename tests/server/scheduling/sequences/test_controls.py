"""Control inputs: values, types and shapes for every kind, and ids that do not fit."""

import numpy as np
import pytest
from google.protobuf import text_format

from trivet.backends.api import DataType, InvalidRequest, Tensor
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.protos.pool import POOL
from trivet.server.scheduling.sequences.controls import Controls

ALL = """
max_batch_size: 4
sequence_batching { control_input [
  { name: "S" control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [ 7, 9 ] }] },
  { name: "R" control [{ kind: CONTROL_SEQUENCE_READY fp32_false_true: [ -1, 1 ] }] },
  { name: "E" control [{ kind: CONTROL_SEQUENCE_END bool_false_true: [ true, false ] }] },
  { name: "C" control [{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }] }
] }
"""


def controls(text: str = ALL) -> Controls:
    return Controls.from_config(text_format.Parse(text, ModelConfig(), descriptor_pool=POOL))


def added(flags: tuple[bool, bool, bool], text: str = ALL, key: int | str | None = 3) -> dict:  # type: ignore[type-arg] # of test values
    inputs: dict[str, Tensor] = {}
    controls(text).add(inputs, flags, key)
    return {name: tensor.numpy().item() for name, tensor in inputs.items()}


@pytest.mark.parametrize(
    ("flags", "start", "ready", "end"),
    [
        ((False, False, False), 7, -1, True),
        ((True, True, False), 9, 1, True),
        ((False, True, True), 7, 1, False),
    ],
)
def test_each_flag_has_the_values_that_the_config_gives_it(
    flags: tuple[bool, bool, bool], start: int, ready: float, end: bool
) -> None:
    assert added(flags) == {"S": start, "R": ready, "E": end, "C": 3}


def test_tensors_have_the_config_s_types_and_a_batch_dimension() -> None:
    inputs: dict[str, Tensor] = {}
    controls().add(inputs, (True, True, True), 2**64 - 1)
    assert {name: t.datatype for name, t in inputs.items()} == {
        "S": DataType.INT32,
        "R": DataType.FP32,
        "E": DataType.BOOL,
        "C": DataType.UINT64,
    }
    assert {t.shape for t in inputs.values()} == {(1, 1)}
    assert inputs["C"].numpy().item() == 2**64 - 1


def test_without_batching_the_tensors_have_one_dimension() -> None:
    inputs: dict[str, Tensor] = {}
    controls(ALL.replace("max_batch_size: 4", "")).add(inputs, (True, True, True), 1)
    assert {t.shape for t in inputs.values()} == {(1,)}


def test_a_text_input_takes_numbers_as_digits_and_placeholders_as_empty() -> None:
    text = ALL.replace("TYPE_UINT64", "TYPE_STRING")
    flags = (True, True, True)
    assert [added(flags, text, key)["C"] for key in ("ab", 12, None)] == [b"ab", b"12", b""]


@pytest.mark.parametrize(
    ("datatype", "key", "text"),
    [
        ("UINT64", "ab", "use an integer"),
        ("UINT32", 2**32, "the largest is 4294967295"),
        ("INT32", 2**31, "the largest is 2147483647"),
        ("INT64", 2**63, "the largest is 9223372036854775807"),
    ],
)
def test_an_id_that_does_not_fit_the_input_is_refused(
    datatype: str, key: int | str, text: str
) -> None:
    made = controls(ALL.replace("UINT64", datatype))
    with pytest.raises(InvalidRequest, match=text):
        made.check_id(key, "m")


def test_the_largest_ids_fit() -> None:
    for datatype, key in (("UINT32", 2**32 - 1), ("INT32", 2**31 - 1), ("INT64", 2**63 - 1)):
        made = controls(ALL.replace("UINT64", datatype))
        made.check_id(key, "m")
        inputs: dict[str, Tensor] = {}
        made.add(inputs, (True, True, True), key)
        assert inputs["C"].numpy() == np.array([[key]])
