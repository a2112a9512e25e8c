"""Texts that differ in their numbers alone mean what they would mean if they were parsed whole."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.backends.api import DataType, InvalidRequest
from trivet.server.http import json_numbers, tensors
from trivet.server.http.json_document import JsonObject, parse_object
from trivet.server.http.json_numbers import Numbered
from trivet.server.http.limits import JsonLimits
from trivet.server.http.plan import plan_request
from trivet.server.http.tensors import InferDecoder


def no_shared_memory(region: str, offset: int, byte_size: int) -> memoryview:
    raise AssertionError


def outcome(decoder: InferDecoder, text: bytes) -> Any:
    """All that a text means: the request, or why it is none."""
    try:
        request = decoder.decode(text, None, "m", None).request
    except InvalidRequest as error:
        return error.message
    inputs = [(t.name, t.datatype, t.shape, bytes(t.raw())) for t in request.inputs.values()]
    return request.id, inputs, request.output_names, dict(request.parameters)


def both(text: bytes) -> tuple[Any, Any]:
    """What a text means to a decoder that knows its like, and to one that parses each text."""
    knowing = InferDecoder(no_shared_memory, JsonLimits())
    outcome(knowing, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "MAX_BYTES", -1)
        whole = outcome(InferDecoder(no_shared_memory, JsonLimits()), text)
    return outcome(knowing, text), whole


def body(**more: Any) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1.5, 2]}
    return {"inputs": [tensor], **more}


ODD = [
    b"",
    b"{",
    b'{"data":[1,2]}',
    b'{"inputs":[]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,,2]}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[01,2]}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,2,3]}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[]}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1e999,2]}]}',
    b'{"inputs":[{"name":"x","datatype":"INT8","shape":[2],"data":[1,200]}]}',
    b'{"inputs":[{"name":"x","datatype":"INT8","shape":[2],"data":[1,2.5]}]}',
    b'{"inputs":[{"name":"x","datatype":"FP16","shape":[2],"data":[1,2]}]}',
    b'{"inputs":[{"name":"x","datatype":"BOOL","shape":[2],"data":[1,0]}]}',
    b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[2],"data":[1,0]}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[-2],"data":[1,0]}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[99999999],"data":[1,0]}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,0],"data":[1,2]}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"\\"data":[1],"data":[2]}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[2]}],"outputs":[{"data":[0]}]}',
    b'{"outputs":[{"name":"y","data":[7]}],"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}',
    b'{"id":"a","id":"b","inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[2]}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[2]}]} x',
    b'{"inputs":[{"name":"\\"data\\":[1]","datatype":"FP32","shape":[1],"data":[2]}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2,1],"data":[[1],[2]]}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}],"parameters":{"data":[1]}}',
    # The places that stand for numbers, as a client's own.
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT32","data": [0]}],"extra":{"data":[7]}}',
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT32","data" :[0]}],"extra":{"data":[7]}}',
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT32","d\\u0061ta":[0]}],"e":{"data":[7]}}',
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT32","data":[0]}],"e":{"f\\"data":[7]}}',
    b'{"id":"a","inputs":[{"name":"x","shape":[1],"datatype":"INT32","data":[5]}],"id":""}',
]


@pytest.mark.parametrize("text", ODD, ids=lambda text: text.decode()[-60:])
def test_what_is_odd_is_told_as_if_it_had_been_parsed(text: bytes) -> None:
    knowing, whole = both(text)
    assert knowing == whole


@given(
    st.lists(st.floats(width=32, allow_nan=False) | st.integers(), max_size=5),
    st.sampled_from(["FP32", "FP64", "INT64", "UINT8"]),
    st.sampled_from(["", "an id"]),
    st.booleans(),
)
def test_numbers_mean_the_same(
    values: list[float], datatype: str, name: str, has_spaces: bool
) -> None:
    inputs = [
        {"name": "x", "datatype": datatype, "shape": [len(values)], "data": values},
        {"name": "y", "datatype": "INT32", "shape": [1, 2], "data": [1, 2]},
    ]
    document = ({"id": name} if name else {}) | {"inputs": inputs}
    option = orjson.OPT_INDENT_2 if has_spaces else None
    try:
        text = orjson.dumps(document, option=option)
    except TypeError:
        return  # JSON as orjson writes it ends at 64 bits.
    knowing, whole = both(text)
    assert knowing == whole


def test_shapes_of_many_inputs_make_no_more_values_than_a_text_can_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    def count(document: Any, name: str) -> Any:
        made.append(sum(len(tensor["data"]) for tensor in document["inputs"]))
        return plan_request(document, name)

    monkeypatch.setattr(json_numbers, "plan_request", count)
    tensor = '{"name":"x%d","shape":[16384],"datatype":"FP32","data":[]}'
    text = '{"inputs":[' + ",".join(tensor % number for number in range(65)) + "]}"
    with pytest.raises(InvalidRequest):
        InferDecoder(no_shared_memory, JsonLimits()).decode(text.encode(), None, "m", None)
    assert made == []


def test_the_text_is_parsed_once_for_other_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []

    def record(text: bytes, limits: JsonLimits) -> JsonObject:
        parsed.append(text)
        return parse_object(text, limits)

    monkeypatch.setattr(json_numbers, "parse_object", record)
    decoder = InferDecoder(no_shared_memory, JsonLimits())
    for number in range(5):
        document = {"id": f"request {number}", **body()}
        document["inputs"][0]["data"] = [number, 0.5]
        request = decoder.decode(orjson.dumps(document), None, "m", None).request
        assert request.id == f"request {number}"
        assert request.inputs["x"].datatype is DataType.FP32
        assert (request.inputs["x"].numpy() == np.array([number, 0.5])).all()
    assert len(parsed) == 1


def test_numbers_are_taken_out_of_flat_arrays_alone() -> None:
    numbered = Numbered.of(b'{"data":[1, -2.5e3],"more":{"data":[]}}')
    assert numbered is not None
    assert numbered.text == b'{"data":[0],"more":{"data":[1]}}'
    assert numbered.numbers == (b"1, -2.5e3", b"")
    assert Numbered.of(b'{"data":["1"]}') is None
    assert Numbered.of(b'{"data":[[1]]}') is None
    assert Numbered.of(b'{"data":[1') is None
