"""ModelInfer messages to requests and back: views, not copies, and errors that name the tensor."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.backends.api import DataType, InferResponse, InvalidRequest, Tensor
from trivet.protos import grpc_service_pb2 as pb
from trivet.server.grpc.codec import Decoder, Encoder
from trivet.server.shared_memory.system import SharedMemory

Input = pb.ModelInferRequest.InferInputTensor
Output = pb.ModelInferRequest.InferRequestedOutputTensor


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(SharedMemory(enabled=False))


def message(**changes: object) -> pb.ModelInferRequest:
    values: dict[str, object] = {
        "model_name": "m",
        "inputs": [Input(name="IN", datatype="FP32", shape=[1, 2])],
        "raw_input_contents": [np.array([1, 2], np.float32).tobytes()],
    }
    return pb.ModelInferRequest(**{**values, **changes})  # type: ignore[arg-type] # test maker


def test_tensors_are_views_on_the_message(decoder: Decoder) -> None:
    wire = message(id="a").SerializeToString()
    request = decoder.decode(wire).request
    assert (request.model_name, request.model_version, request.id) == ("m", None, "a")
    values = request.inputs["IN"].numpy()
    assert values.tolist() == [[1, 2]]
    assert np.shares_memory(values, np.frombuffer(wire, np.uint8))


def test_a_repeated_request_differs_only_in_id_and_data(decoder: Decoder) -> None:
    for name, value in (("a", 1.0), ("b", 7.0)):
        raw = [np.array([value, 0], np.float32).tobytes()]
        request = decoder.decode(
            message(id=name, raw_input_contents=raw).SerializeToString()
        ).request
        assert request.id == name
        assert request.inputs["IN"].numpy()[0, 0] == value


def test_requests_do_not_share_their_mutable_parts(decoder: Decoder) -> None:
    wire = message().SerializeToString()
    first, second = decoder.decode(wire).request, decoder.decode(wire).request
    assert first.inputs is not second.inputs


CONTENTS = {
    "BOOL": ("bool_contents", [True, False]),
    "INT8": ("int_contents", [-1, 2]),
    "UINT16": ("uint_contents", [1, 2]),
    "INT64": ("int64_contents", [-(2**62), 2]),
    "UINT64": ("uint64_contents", [2**63, 2]),
    "FP32": ("fp32_contents", [0.5, 2.0]),
    "FP64": ("fp64_contents", [0.1, 2.0]),
    "BYTES": ("bytes_contents", [b"a\0", b""]),
}


@pytest.mark.parametrize("datatype", CONTENTS)
def test_typed_contents_are_read(decoder: Decoder, datatype: str) -> None:
    field, values = CONTENTS[datatype]
    tensor = Input(name="IN", datatype=datatype, shape=[2])
    getattr(tensor.contents, field).extend(values)
    wire = message(inputs=[tensor], raw_input_contents=[]).SerializeToString()
    assert decoder.decode(wire).request.inputs["IN"].numpy().tolist() == values


def fp32(**changes: object) -> Input:
    values = {"name": "IN", "datatype": "FP32", "shape": [1, 2]}
    return Input(**{**values, **changes})  # type: ignore[arg-type] # test maker


def with_contents(tensor: Input, **contents: list[object]) -> Input:
    tensor.contents.CopyFrom(pb.InferTensorContents(**contents))  # type: ignore[arg-type] # maker
    return tensor


def parameter(**value: object) -> dict[str, pb.InferParameter]:
    return {name: pb.InferParameter(string_param=str(text)) for name, text in value.items()}


BAD: dict[str, tuple[Callable[[], pb.ModelInferRequest], str]] = {
    "short": (
        lambda: message(raw_input_contents=[b"1234"]),
        "input byte size mismatch for input 'IN'",
    ),
    "raw count": (
        lambda: message(raw_input_contents=[b"", b""]),
        "expected 1 entries in raw_input",
    ),
    "no data": (
        lambda: message(raw_input_contents=[]),
        "unable to find data for input tensor 'IN'",
    ),
    "both": (
        lambda: message(inputs=[with_contents(fp32(), fp32_contents=[1.0, 2.0])]),
        "contents field must not be specified when using raw_input_contents for 'IN'",
    ),
    "wrong contents": (
        lambda: message(
            inputs=[with_contents(fp32(), int64_contents=[1, 2])], raw_input_contents=[]
        ),
        "must give fp32_contents, got int64_contents",
    ),
    "too few contents": (
        lambda: message(inputs=[with_contents(fp32(), fp32_contents=[1.0])], raw_input_contents=[]),
        "expected 2, got 1",
    ),
    "contents out of range": (
        lambda: message(
            inputs=[with_contents(fp32(datatype="INT8"), int_contents=[300, 0])],
            raw_input_contents=[],
        ),
        "out of range for INT8",
    ),
    "FP16 contents": (
        lambda: message(
            inputs=[with_contents(fp32(datatype="FP16"), fp32_contents=[1.0, 2.0])],
            raw_input_contents=[],
        ),
        "use raw_input_contents",
    ),
    "datatype": (lambda: message(inputs=[fp32(datatype="FP99")]), "unknown datatype 'FP99'"),
    "negative dim": (lambda: message(inputs=[fp32(shape=[-1, 2])]), "must be positive"),
    "huge": (
        lambda: message(inputs=[fp32(shape=[2**62, 2**62])]),
        "causes total element count to exceed maximum size of",
    ),
    "huge bytes": (lambda: message(inputs=[fp32(shape=[2**62])]), "byte size overflow for input"),
    "twice": (lambda: message(inputs=[fp32(), fp32()]), "input 'IN' already exists in request"),
    "output twice": (
        lambda: message(outputs=[Output(name="OUT"), Output(name="OUT")]),
        "output 'OUT' already exists in request",
    ),
    "version": (lambda: message(model_version="-1"), "failed to get model version"),
    "reserved": (lambda: message(parameters=parameter(triton_x=1)), "reserved for Triton usage"),
    "headers": (lambda: message(parameters=parameter(headers=1)), "'headers' is reserved"),
    "priority": (
        lambda: message(parameters=parameter(priority="x")),
        "'priority' must be an integer",
    ),
    "empty parameter": (
        lambda: message(parameters={"x": pb.InferParameter()}),
        "parameter 'x' has no value",
    ),
    "classification": (
        lambda: message(outputs=[Output(name="OUT", parameters=parameter(classification="a"))]),
        "'classification' of output 'OUT' must be a positive integer",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_request_is_refused_by_name(decoder: Decoder, case: str) -> None:
    make, text = BAD[case]
    with pytest.raises(InvalidRequest) as refused:
        decoder.decode(make().SerializeToString())
    assert text in refused.value.message


def test_bytes_that_are_no_message_are_refused(decoder: Decoder) -> None:
    with pytest.raises(InvalidRequest, match="failed to parse the ModelInferRequest message"):
        decoder.decode(b"\x0a\xff\xff")


def test_a_full_template_cache_goes_on_working(decoder: Decoder) -> None:
    for number in range(3000):
        wire = message(model_name=f"m{number}").SerializeToString()
        assert decoder.decode(wire).request.model_name == f"m{number}"


@given(
    name=st.text(),
    request_id=st.text(),
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    parameters=st.dictionaries(
        st.text(), st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text()
    ),
    final=st.none() | st.booleans(),
)
def test_a_response_says_what_was_put_in(
    *,
    name: str,
    request_id: str,
    sizes: list[int],
    parameters: dict[str, bool | int | float | str],
    final: bool | None,
) -> None:
    outputs = [Tensor.of(f"OUT{n}", np.arange(n, dtype=np.int64)) for n in sizes]
    response = InferResponse(name, 3, request_id, outputs, parameters)
    encoder = Encoder()
    for _ in range(2):
        pieces = encoder.encode(response, (), final=final)
        decoded = pb.ModelInferResponse.FromString(b"".join(pieces))
        assert (decoded.model_name, decoded.model_version, decoded.id) == (name, "3", request_id)
        assert [o.name for o in decoded.outputs] == [tensor.name for tensor in outputs]
        assert [list(o.shape) for o in decoded.outputs] == [[n] for n in sizes]
        raw = [np.frombuffer(r, np.int64).tolist() for r in decoded.raw_output_contents]
        assert raw == [list(range(n)) for n in sizes]
        has_final = "triton_final_response" in decoded.parameters
        assert has_final is (final is not None)


def test_large_outputs_are_not_joined_and_those_in_shared_memory_are_empty() -> None:
    large = Tensor.of("L", np.zeros(10_000))
    there = Tensor("S", DataType.BYTES, (1,), np.array([b"x"], dtype=object))
    pieces = Encoder().encode(InferResponse("m", 1, "", [large, there]), {"S"}, final=None)
    assert any(
        np.shares_memory(np.frombuffer(p, np.uint8), large.numpy()) for p in pieces if len(p)
    )
    decoded = pb.ModelInferResponse.FromString(b"".join(pieces))
    assert [len(raw) for raw in decoded.raw_output_contents] == [80_000, 0]
