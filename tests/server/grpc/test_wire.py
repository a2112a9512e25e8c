"""Splitting and joining protobuf messages by hand gives what the protobuf library gives."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.protos import grpc_service_pb2 as pb
from trivet.server.grpc.wire import field_head, read_varint, split_infer_request, varint

messages = st.builds(
    pb.ModelInferRequest,
    model_name=st.text(),
    model_version=st.text(max_size=3),
    id=st.text(),
    parameters=st.dictionaries(
        st.one_of(st.text(), st.sampled_from(["sequence_id", "sequence_ids", "sequence"])),
        st.builds(pb.InferParameter, int64_param=st.integers(-5, 5), string_param=st.text()),
    ),
    inputs=st.lists(
        st.builds(
            pb.ModelInferRequest.InferInputTensor,
            name=st.text(),
            shape=st.lists(st.integers(-(2**63), 2**63 - 1)),
            contents=st.builds(pb.InferTensorContents, fp32_contents=st.lists(st.floats(width=32))),
        )
    ),
    raw_input_contents=st.lists(st.binary(max_size=300)),
)


@given(messages)
def test_a_split_message_is_the_same_message(message: pb.ModelInferRequest) -> None:
    split = split_infer_request(message.SerializeToString())
    again = pb.ModelInferRequest.FromString(split.header)
    again.id = split.id.decode()
    if split.sequence_id is not None:
        entry = pb.ModelInferRequest.ParametersEntry.FromString(split.sequence_id)
        assert entry.key == "sequence_id"
        again.parameters[entry.key].CopyFrom(entry.value)
    again.raw_input_contents.extend(bytes(raw) for raw in split.raw)
    assert again.SerializeToString(deterministic=True) == message.SerializeToString(
        deterministic=True
    )


def test_raw_contents_are_views_on_the_message() -> None:
    message = pb.ModelInferRequest(raw_input_contents=[bytes(1000)]).SerializeToString()
    assert split_infer_request(message).raw[0].obj is message


@given(st.binary(max_size=60))
def test_garbage_is_split_or_refused_but_never_worse(garbage: bytes) -> None:
    with contextlib.suppress(ValueError):
        split_infer_request(garbage)


@pytest.mark.parametrize(
    "cut", [b"\x3a", b"\x3a\x05abc", b"\x0a\xff", b"\x3a" + b"\xff" * 11, b"\x0b"]
)
def test_a_message_that_is_cut_off_is_refused(cut: bytes) -> None:
    with pytest.raises(ValueError, match=r"past the end|cut off|wire type"):
        split_infer_request(cut)


@given(st.integers(0, 2**63))
def test_varints_round_trip(value: int) -> None:
    encoded = varint(value)
    assert read_varint(memoryview(encoded), 0) == (value, len(encoded))
    assert field_head(b"\x12", value) == b"\x12" + encoded
