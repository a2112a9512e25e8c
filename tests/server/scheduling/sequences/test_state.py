"""Implicit state: how it begins, what is kept of a model's outputs, and whose memory it is."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from trivet.backends.api import BackendFailed, InvalidConfig, ModelFiles, Tensor
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.protos.pool import POOL
from trivet.server.scheduling.sequences.sequence import Sequence
from trivet.server.scheduling.sequences.state import ImplicitState

BASE = 'input_name: "IN" output_name: "OUT" data_type: TYPE_FP32 dims: [ -1 ]'


def state_of(text: str = "", folder: Path = Path("/none"), more: str = "") -> ImplicitState:
    config = f"max_batch_size: 4 sequence_batching {{ state [{{ {BASE} {text} }}] }} {more}"
    parsed = text_format.Parse(config, ModelConfig(), descriptor_pool=POOL)
    state = ImplicitState.from_config(parsed, ModelFiles(folder, 1))
    assert state is not None
    return state


def first_input(state: ImplicitState, sequence: Sequence, *, is_start: bool = True) -> Tensor:
    inputs: dict[str, Tensor] = {}
    state.add(inputs, sequence, is_start=is_start)
    return inputs["IN"]


def output(*values: float, name: str = "OUT") -> Tensor:
    return Tensor.of(name, np.array([values], np.float32))


def make_sequence() -> Sequence:
    return Sequence(1, 0)


def test_a_state_begins_as_zeros_and_variable_dimensions_as_one() -> None:
    tensor = first_input(state_of(), make_sequence())
    assert (tensor.name, tensor.shape, tensor.numpy().tolist()) == ("IN", (1, 1), [[0]])


def test_a_state_begins_with_the_file_s_values(tmp_path: Path) -> None:
    (tmp_path / "initial_state").mkdir()
    (tmp_path / "initial_state/x").write_bytes(np.array([1, 2, 3], "<f4").tobytes())
    text = 'initial_state { name: "i" data_type: TYPE_FP32 dims: [ 3 ] data_file: "x" }'
    tensor = first_input(state_of(text, tmp_path), make_sequence())
    assert tensor.numpy().tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(("name", "reason"), [("x", "does not hold"), ("y", "has no file")])
def test_a_wrong_file_is_a_load_error(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "initial_state").mkdir()
    (tmp_path / "initial_state/x").write_bytes(b"12345")
    text = f'initial_state {{ name: "i" data_type: TYPE_FP32 dims: [ 3 ] data_file: "{name}" }}'
    with pytest.raises(InvalidConfig, match=reason):
        state_of(text, tmp_path)


def test_an_output_state_is_the_next_input_and_not_the_client_s() -> None:
    state, sequence = state_of(), make_sequence()
    first_input(state, sequence)
    seen = state.take(sequence, [output(5, name="Y"), output(1, 2)], is_shared=False)
    assert [tensor.name for tensor in seen] == ["Y"]
    following = first_input(state, sequence, is_start=False)
    assert (following.name, following.numpy().tolist()) == ("IN", [[1, 2]])


def test_a_start_begins_anew() -> None:
    state, sequence = state_of(), make_sequence()
    first_input(state, sequence)
    state.take(sequence, [output(7)], is_shared=False)
    assert first_input(state, sequence, is_start=True).numpy().tolist() == [[0]]


def test_a_state_that_the_config_lists_as_output_is_seen_too() -> None:
    state = state_of(more='output [{ name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }]')
    sequence = make_sequence()
    first_input(state, sequence)
    assert [t.name for t in state.take(sequence, [output(1)], is_shared=False)] == ["OUT"]


def test_a_lone_output_is_kept_without_a_copy_a_batch_s_row_with_one() -> None:
    state, sequence = state_of(), make_sequence()
    first_input(state, sequence)
    alone = output(1, 2)
    state.take(sequence, [alone], is_shared=False)
    assert np.shares_memory(first_input(state, sequence, is_start=False).numpy(), alone.numpy())
    batch = np.zeros((4, 2), np.float32)
    state.take(sequence, [Tensor.of("OUT", batch[:1])], is_shared=True)
    assert not np.shares_memory(first_input(state, sequence, is_start=False).numpy(), batch)


def test_one_buffer_keeps_its_address_and_takes_what_the_model_writes_into_it() -> None:
    state, sequence = state_of("use_same_buffer_for_input_output: true"), make_sequence()
    buffer = first_input(state, sequence).numpy()
    state.take(sequence, [output(3)], is_shared=True)
    buffer += 1
    following = first_input(state, sequence, is_start=False).numpy()
    assert following.ctypes.data == buffer.ctypes.data
    assert following.tolist() == [[4]]


def test_buffers_of_two_sequences_are_not_the_same() -> None:
    state = state_of("use_same_buffer_for_input_output: true")
    one, other = (first_input(state, make_sequence()).numpy() for _ in range(2))
    assert not np.shares_memory(one, other)


def test_a_buffer_grows_only_where_it_may() -> None:
    same = "use_same_buffer_for_input_output: true"
    state, sequence = state_of(same), make_sequence()
    first_input(state, sequence)
    with pytest.raises(BackendFailed, match="use_growable_memory"):
        state.take(sequence, [output(1, 2)], is_shared=False)
    state, sequence = state_of(f"{same} use_growable_memory: true"), make_sequence()
    first_input(state, sequence)
    state.take(sequence, [output(1, 2)], is_shared=False)
    assert first_input(state, sequence, is_start=False).numpy().tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 1), np.int32), np.zeros((1,), np.float32), np.zeros((2, 1), np.float32)]
)
def test_a_state_of_another_type_or_shape_is_the_model_s_failure(wrong: np.ndarray) -> None:
    state, sequence = state_of(), make_sequence()
    first_input(state, sequence)
    with pytest.raises(BackendFailed, match="the config says"):
        state.take(sequence, [Tensor.of("OUT", wrong)], is_shared=False)


def test_a_state_that_is_not_answered_stays() -> None:
    state, sequence = state_of(), make_sequence()
    first_input(state, sequence)
    state.take(sequence, [output(9)], is_shared=False)
    state.take(sequence, [], is_shared=False)
    assert first_input(state, sequence, is_start=False).numpy().tolist() == [[9]]
