"""The infer codec: what goes in comes out, and nothing but a ServingError for what cannot."""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trivet.backends.api import (
    DataType,
    InferRequest,
    InferResponse,
    InvalidRequest,
    ServingError,
    Tensor,
)
from trivet.server.http.limits import JsonLimits
from trivet.server.http.plan import ALL_BINARY, ALL_JSON, Wishes
from trivet.server.http.tensors import Decoded, InferDecoder, encode_infer

NUMBERS: list[DataType] = [datatype for datatype in DataType if datatype is not DataType.BYTES]
JSON_NUMBERS: list[DataType] = [d for d in NUMBERS if d not in (DataType.FP16, DataType.BF16)]


def no_shared_memory(region: str, offset: int, byte_size: int) -> memoryview:
    raise InvalidRequest(f"Unable to find shared memory region: '{region}'")


@pytest.fixture
def decoder() -> InferDecoder:
    return InferDecoder(no_shared_memory, JsonLimits())


def decode_answer(decoder: InferDecoder, response: InferResponse, wishes: Wishes) -> Decoded:
    """Decodes an encoded answer as if its outputs were the inputs of a request."""
    encoded = encode_infer(response, wishes)
    document = orjson.loads(encoded.text)
    document["inputs"] = document.pop("outputs")
    text = orjson.dumps(document)
    body = b"".join([text, *encoded.buffers])
    return decoder.decode(body, len(text), "m", None)


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def number_tensors(draw: st.DrawFn, datatypes: list[DataType]) -> Tensor:
    datatype = draw(st.sampled_from(datatypes))
    shape = draw(shapes)
    size = int(np.prod(shape, dtype=int)) * datatype.size
    raw = draw(st.binary(min_size=size, max_size=size))
    if datatype is DataType.BOOL:
        raw = bytes(byte & 1 for byte in raw)
    return Tensor.from_raw("x", datatype, shape, raw)


@st.composite
def string_tensors(draw: st.DrawFn, elements: st.SearchStrategy[bytes]) -> Tensor:
    shape = draw(shapes)
    count = int(np.prod(shape, dtype=int))
    values = np.empty(count, dtype=object)
    values[:] = draw(st.lists(elements, min_size=count, max_size=count))
    return Tensor("x", DataType.BYTES, shape, values.reshape(shape))


text_bytes = st.text(max_size=8).map(str.encode)


@given(number_tensors(NUMBERS) | string_tensors(st.binary(max_size=8)))
def test_binary_tensors_come_back_bit_by_bit(tensor: Tensor) -> None:
    decoder = InferDecoder(no_shared_memory, JsonLimits())
    decoded = decode_answer(decoder, InferResponse("m", 1, "7", [tensor]), ALL_BINARY)
    again = decoded.request.inputs["x"]
    assert (again.datatype, again.shape) == (tensor.datatype, tensor.shape)
    assert bytes(again.raw()) == bytes(tensor.raw())
    assert decoded.request.id == "7"


@given(number_tensors(JSON_NUMBERS) | string_tensors(text_bytes))
def test_json_tensors_come_back_value_by_value(tensor: Tensor) -> None:
    values = tensor.numpy()
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return
    decoder = InferDecoder(no_shared_memory, JsonLimits())
    decoded = decode_answer(decoder, InferResponse("m", 1, "", [tensor]), ALL_JSON)
    again = decoded.request.inputs["x"]
    assert (again.datatype, again.shape) == (tensor.datatype, tensor.shape)
    assert np.array_equal(again.numpy(), values)


KEYS = ["inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "id", "timeout"]
request_documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS), children, max_size=5)
    ),
    max_leaves=20,
)


def is_served_or_refused(decode: Callable[[], Decoded]) -> None:
    try:
        request = decode().request
    except ServingError as error:
        # Its text must fit into a JSON answer.
        orjson.dumps(error.message)
        return
    assert isinstance(request, InferRequest)


@given(st.binary(max_size=200), st.none() | st.integers(0, 250))
@example(b"[" * 150, None)
@example(b'{"id":"a","id":"b"}', 19)
def test_random_bytes_are_served_or_refused(body: bytes, header_length: int | None) -> None:
    decoder = InferDecoder(no_shared_memory, JsonLimits())
    is_served_or_refused(lambda: decoder.decode(body, header_length, "m", None))


@settings(max_examples=300)
@given(request_documents, st.binary(max_size=8))
def test_random_documents_are_served_or_refused(document: Any, tail: bytes) -> None:
    decoder = InferDecoder(no_shared_memory, JsonLimits())
    try:
        text = orjson.dumps({"inputs": [document]} if type(document) is dict else document)
    except orjson.JSONEncodeError:
        return
    is_served_or_refused(lambda: decoder.decode(text + tail, len(text), "m", None))


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["a", "b"]),
            "datatype": st.sampled_from([d.value for d in DataType]),
            "shape": st.lists(st.integers(-1, 3) | st.just(2**40), max_size=3),
        },
        optional={
            "data": st.lists(st.integers() | st.floats() | st.text(max_size=2), max_size=4)
            | st.lists(st.lists(st.integers(0, 1), max_size=2), max_size=2),
            "parameters": st.dictionaries(
                st.sampled_from(["binary_data_size", "shared_memory_region"]), st.integers(0, 9)
            ),
        },
    ),
    st.binary(max_size=12),
)
def test_nearly_right_tensors_are_served_or_refused(tensor: Any, tail: bytes) -> None:
    decoder = InferDecoder(no_shared_memory, JsonLimits())
    try:
        text = orjson.dumps({"inputs": [tensor]})
    except orjson.JSONEncodeError:
        return
    is_served_or_refused(lambda: decoder.decode(text + tail, len(text), "m", None))


def request_body(id_text: str = "", size: int = 16) -> tuple[bytes, int]:
    text = (
        b"{"
        + (f'"id":"{id_text}",'.encode() if id_text else b"")
        + b'"inputs":[{"name":"x","shape":[4],"datatype":"FP32","parameters":'
        + b'{"binary_data_size":%d}}],"parameters":{"p":1}}' % size
    )
    return text + np.arange(4, dtype=np.float32).tobytes(), len(text)


def test_requests_that_differ_in_id_and_values_are_told_apart(decoder: InferDecoder) -> None:
    first = decoder.decode(*request_body("a"), "m", 1).request
    body, length = request_body("b")
    second = decoder.decode(body[:length] + bytes(16), length, "m", 1).request
    third = decoder.decode(*request_body(), "m", 1).request
    assert [first.id, second.id, third.id] == ["a", "b", ""]
    assert first.inputs["x"].numpy().tolist() == [0, 1, 2, 3]
    assert second.inputs["x"].numpy().tolist() == [0, 0, 0, 0]


def test_a_remembered_plan_still_names_the_right_model(decoder: InferDecoder) -> None:
    for model in ("first", "second", "first"):
        with pytest.raises(InvalidRequest, match=f"for model '{model}'. Expected 16, got 12"):
            decoder.decode(*request_body(size=12), model, None)


@pytest.mark.parametrize("text", [b'{"id":"a","id":"b"}', b'{"id":"a","x":1,"id":"b"}'])
def test_a_second_id_is_a_duplicate_key(decoder: InferDecoder, text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="duplicate key 'id'"):
        decoder.decode(text, len(text), "m", None)


def test_large_binary_inputs_are_views_on_the_body(decoder: InferDecoder) -> None:
    body, length = request_body()
    memory = np.frombuffer(body, dtype=np.uint8).copy()
    request = decoder.decode(memory.data, length, "m", None).request
    assert np.shares_memory(request.inputs["x"].numpy(), memory)


def test_outputs_are_sent_from_where_they_are() -> None:
    values = np.arange(1000, dtype=np.float64)
    encoded = encode_infer(InferResponse("m", 1, "", [Tensor.of("y", values)]), ALL_BINARY)
    (buffer,) = encoded.buffers
    assert np.shares_memory(np.frombuffer(buffer, np.uint8), values)


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 3], [1, 2, 3, 4, 5, 6]),
        ([2, 3], [[1, 2, 3], [4, 5, 6]]),
        ([1, 2, 3], [[1, 2, 3], [4, 5, 6]]),
        ([2, 3, 1], [[[1], [2], [3]], [[4], [5], [6]]]),
        ([6], [[1, 2, 3, 4, 5, 6]]),
        ([2, 1, 3], [[1, 2, 3], [4, 5, 6]]),
    ],
)
def test_data_may_be_flat_or_nested_like_its_shape(
    decoder: InferDecoder, shape: list[int], data: list[Any]
) -> None:
    text = orjson.dumps(
        {"inputs": [{"name": "x", "datatype": "INT64", "shape": shape, "data": data}]}
    )
    tensor = decoder.decode(text, None, "m", None).request.inputs["x"]
    assert tensor.shape == tuple(shape)
    assert tensor.numpy().ravel().tolist() == [1, 2, 3, 4, 5, 6]


def test_nesting_of_a_hundred_levels_is_not_too_deep(decoder: InferDecoder) -> None:
    text = b'{"x":' + b"[" * 99 + b"]" * 99 + b"}"
    assert decoder.decode(text, None, "m", None).request.inputs == {}


def test_brackets_and_escapes_in_strings_are_text(decoder: InferDecoder) -> None:
    values = ['[[[["{', 'a\\"b', "\\", ':,"', "a\x00b"] * 60
    text = orjson.dumps(
        {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [300], "data": values}]}
    )
    tensor = decoder.decode(text, None, "m", None).request.inputs["x"]
    assert tensor.numpy().tolist() == [value.encode() for value in values]


def test_depth_is_seen_across_a_large_text(decoder: InferDecoder) -> None:
    # More than a megabyte of structure, with strings on the borders of what is looked at at once.
    padding = b"[" + b'"[",' * 400_000 + b"0]"
    deep = b"[" * 99 + b"]" * 99
    for text, is_fine in ((deep, True), (b"[" + deep + b"]", False)):
        body = b'{"x":%b,"y":%b}' % (padding, text)
        if is_fine:
            assert decoder.decode(body, None, "m", None).request.inputs == {}
        else:
            with pytest.raises(InvalidRequest, match="JSON nesting depth exceeds"):
                decoder.decode(body, None, "m", None)


def test_more_values_than_fit_are_refused_before_they_are_built(decoder: InferDecoder) -> None:
    body = b'{"x":[' + b"1," * 10_000_000 + b"1]}"
    with pytest.raises(InvalidRequest, match="holds more than 10000000 values"):
        decoder.decode(body, None, "m", None)


def test_parameters_are_sorted_out(decoder: InferDecoder) -> None:
    text = orjson.dumps(
        {
            "inputs": [],
            "outputs": [{"name": "b"}, {"name": "a"}],
            "parameters": {
                "priority": 3,
                "timeout": 1000,
                "sequence_id": 2**64 - 1 - 2**63,
                "sequence_start": True,
                "sequence_end": False,
                "binary_data_output": True,
                "text": "t",
                "number": 1.5,
                "count": -2,
                "yes": True,
            },
        }
    )
    request = decoder.decode(text, None, "m", 3).request
    assert (request.model_name, request.model_version) == ("m", 3)
    assert (request.priority, request.timeout_us) == (3, 1000)
    assert (request.sequence_id, request.sequence_start) == (2**63 - 1, True)
    assert request.parameters == {"text": "t", "number": 1.5, "count": -2, "yes": True}
    assert request.output_names == ("b", "a")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.array([1.5, np.nan, -np.inf, np.inf, 3.3], np.float32), "1.5, NaN, -Infinity, Inf"),
        (np.array([3.3], np.float32), "[3.3]"),
        (np.array([True, False]), "[true,false]"),
        (np.array([2**64 - 1], np.uint64), "[18446744073709551615]"),
        (np.array([[1, 2], [3, 4]], np.int8), "[1,2,3,4]"),
        (np.array([b"a\x00b", "\u00e9"], object), '["a\\u0000b","\u00e9"]'),
        (np.empty((0, 3)), "[]"),
    ],
)
def test_json_output_is_flat_and_exact(values: np.ndarray, text: str) -> None:
    encoded = encode_infer(InferResponse("m", 1, "", [Tensor.of("y", values)]), ALL_JSON)
    assert text in encoded.text.decode()


@pytest.mark.parametrize("dtype", [DataType.FP16.dtype, DataType.BF16.dtype])
def test_half_floats_cannot_be_sent_as_json(dtype: np.dtype[Any]) -> None:
    tensor = Tensor.of("y", np.zeros(2, dtype))
    with pytest.raises(InvalidRequest, match=r"sending .* data via JSON is not supported"):
        encode_infer(InferResponse("m", 1, "", [tensor]), ALL_JSON)


def test_bytes_that_are_no_text_cannot_be_sent_as_json() -> None:
    tensor = Tensor.of("y", np.array([b"\xff"], object))
    with pytest.raises(InvalidRequest, match="binary data format for output y"):
        encode_infer(InferResponse("m", 1, "", [tensor]), ALL_JSON)


def test_an_answer_has_an_id_and_parameters_only_where_there_are_any() -> None:
    assert orjson.loads(encode_infer(InferResponse("m", 3, "", []), ALL_BINARY).text) == {
        "model_name": "m",
        "model_version": "3",
        "outputs": [],
    }
    encoded = encode_infer(InferResponse("m", 3, "i", [], {"p": 1}), ALL_BINARY)
    assert orjson.loads(encoded.text)["id"] == "i"
    assert orjson.loads(encoded.text)["parameters"] == {"p": 1}


def test_answers_that_are_alike_keep_their_own_ids_shapes_and_sizes() -> None:
    wanted = [
        (name, Tensor.of("y", np.zeros(shape, dtype)))
        for name in ("", "a", 'quote " and ü')
        for shape, dtype in (((2,), np.float32), ((1, 2), np.float32), ((2,), np.float64))
    ]
    for name, tensor in (*wanted, *wanted):
        encoded = encode_infer(InferResponse("m", 1, name, [tensor]), ALL_BINARY)
        document = orjson.loads(encoded.text)
        assert document.get("id", "") == name
        assert document["outputs"] == [
            {
                "name": "y",
                "datatype": tensor.datatype.value,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": tensor.nbytes},
            }
        ]


def test_shared_inputs_are_read_where_they_are() -> None:
    memory = struct.pack("<4f", 1, 2, 3, 4)
    asked = []

    def read(region: str, offset: int, byte_size: int) -> memoryview:
        asked.append((region, offset, byte_size))
        return memoryview(memory)[offset : offset + byte_size]

    place = {
        "shared_memory_region": "r",
        "shared_memory_offset": 8,
        "shared_memory_byte_size": 8,
    }
    text = orjson.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "parameters": place}]}
    )
    tensor = InferDecoder(read, JsonLimits()).decode(text, None, "m", None).request.inputs["x"]
    assert asked == [("r", 8, 8)]
    assert tensor.numpy().tolist() == [3, 4]
    assert np.shares_memory(tensor.numpy(), np.frombuffer(memory, np.uint8))


@pytest.mark.parametrize("name", ["", "r1", 'quoted "\n'])
@pytest.mark.parametrize(
    "arrays",
    [
        [np.array([[0.5, 3.3]], np.float32)],
        [np.array([np.nan, -np.inf, 1.5]), np.array([2**63], np.uint64)],
        [np.array([True, False]), np.array([[b"a", b""]], dtype=object), np.zeros((0, 2))],
        [],
    ],
)
def test_an_answer_of_kept_texts_is_the_one_that_is_written_anew(
    name: str, arrays: list[np.ndarray]
) -> None:
    tensors = [Tensor.of(f"out {i}", array) for i, array in enumerate(arrays)]
    response = InferResponse("m", 2, name, tensors)
    anew = encode_infer(response, Wishes({}, others_binary=False, special={}))
    for _ in range(2):
        kept = encode_infer(response, ALL_JSON)
        assert (kept.text, kept.buffers) == (anew.text, anew.buffers)
    assert anew.text.startswith(b'{"model_name":"m","model_version":"2","outputs":[')
