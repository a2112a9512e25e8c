"""Faults of `sequence_batching` are found at load and named with field, value and limit."""

import pytest
from google.protobuf import text_format

from trivet.protos.model_config_pb2 import ModelConfig
from trivet.protos.pool import POOL
from trivet.server.repository.check_sequences import sequence_faults

START = 'control_input { name: "S" control { kind: CONTROL_SEQUENCE_START %s } }'
CORRID = 'control_input { name: "C" control { kind: CONTROL_SEQUENCE_CORRID %s } }'
STATE = 'state { input_name: "I" output_name: "O" data_type: TYPE_FP32 dims: [ -1, 2 ] %s }'
INITIAL = "initial_state { data_type: TYPE_FP32 dims: [ 1, 2 ] %s }"
GOOD = """
direct { minimum_slot_utilization: 0.5 max_queue_delay_microseconds: 10 }
control_input { name: "S" control { kind: CONTROL_SEQUENCE_START bool_false_true: [ 0, 1 ] } }
control_input { name: "C" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } }
state { input_name: "I" output_name: "O" data_type: TYPE_FP32 dims: [ -1 ]
        initial_state { name: "x" data_type: TYPE_FP32 dims: [ 4 ] data_file: "a/b" } }
"""


def faults(text: str, more: str = "") -> list[str]:
    config = f'max_batch_size: 4 input {{ name: "X" }} sequence_batching {{ {text} }} {more}'
    parsed = text_format.Parse(config, ModelConfig(), descriptor_pool=POOL)
    return list(sequence_faults(parsed))


def test_a_config_that_uses_everything_has_no_fault() -> None:
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "direct { minimum_slot_utilization: 1.5 }",
            "minimum_slot_utilization must be from 0 to 1",
        ),
        ("oldest {}", "max_candidate_sequences must be 1 or more, got 0"),
        (
            "oldest { max_candidate_sequences: 4 preferred_batch_size: 5 }",
            "must be positive and <= max_batch_size 4, got 5",
        ),
        (START % "", "must have exactly one of int32_false_true"),
        (START % "int32_false_true: [ 1 ]", "with two values"),
        (
            START % "int32_false_true: [ 0, 1 ] fp32_false_true: [ 0, 1 ]",
            "must have exactly one of int32_false_true",
        ),
        (CORRID % "data_type: TYPE_FP32", "got TYPE_FP32"),
        (
            CORRID % "data_type: TYPE_INT32 int32_false_true: [ 0, 1 ]",
            "must not have false_true values",
        ),
        ('control_input { name: "S" }', "must have exactly one control, got 0"),
        (
            START % "int32_false_true: [ 0, 1 ]"
            + (START % "int32_false_true: [ 0, 1 ]").replace('"S"', '"T"'),
            "CONTROL_SEQUENCE_START twice",
        ),
        ((START % "int32_false_true: [ 0, 1 ]").replace('"S"', '"X"'), "configured twice"),
        ((STATE % "").replace('"I"', '"X"'), "configured twice"),
        ('state { input_name: "I" data_type: TYPE_FP32 dims: [ 1 ] }', "has no output_name"),
        ('state { input_name: "I" output_name: "O" dims: [ 1 ] }', "must specify a data_type"),
        ((STATE % "").replace("-1", "0"), "dimensions are positive"),
        (STATE % "use_growable_memory: true", "needs use_same_buffer_for_input_output"),
        (STATE % (INITIAL % ""), "needs zero_data or data_file"),
        (STATE % (INITIAL % 'data_file: "../x"'), "must lie inside initial_state/"),
        (
            STATE % (INITIAL % "zero_data: true").replace("[ 1, 2 ]", "[ 2 ]"),
            "do not fit the state's [-1, 2]",
        ),
        (STATE % (INITIAL % "zero_data: true").replace("FP32", "INT8"), "has data_type TYPE_INT8"),
        (STATE % (INITIAL % "zero_data: true" * 2), "at most one initial_state, got 2"),
    ],
)
def test_a_fault_is_named_with_what_is_wrong(text: str, fault: str) -> None:
    assert any(fault in each for each in faults(text)), faults(text)


def test_a_decoupled_model_keeps_its_state_itself() -> None:
    more = "model_transaction_policy { decoupled: true }"
    assert any("decoupled model cannot have implicit state" in each for each in faults(GOOD, more))
