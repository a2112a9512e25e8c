"""Wrong infer requests: each gets its own status and text, and the next request is unharmed."""

import json
from typing import Any

import numpy as np
import orjson
import pytest
from http_site import Site

ROW = [1.0] * 16


def tensor(name: str = "INPUT0", **changes: Any) -> dict[str, Any]:
    """An input of `simple` with some fields changed; those set to ... are left out."""
    fields = {"name": name, "shape": [1, 16], "datatype": "FP32", "data": ROW} | changes
    return {key: value for key, value in fields.items() if value is not ...}


def simple(**changes: Any) -> dict[str, Any]:
    return {"inputs": [tensor(**changes), tensor("INPUT1")]}


def ident(datatype: str, *data: Any, shape: Any = None) -> dict[str, Any]:
    shape = [len(data)] if shape is None else shape
    return {
        "inputs": [{"name": "INPUT0", "shape": shape, "datatype": datatype, "data": list(data)}]
    }


def binary(size: Any, datatype: str = "FP32", shape: Any = None) -> dict[str, Any]:
    return {
        "inputs": [
            {
                "name": "INPUT0",
                "shape": shape or [16],
                "datatype": datatype,
                "parameters": {"binary_data_size": size},
            }
        ]
    }


async def post(site: Site, body: bytes, path: str, **headers: str) -> tuple[int, str]:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    async with site.session.post(path, data=body, headers=named) as answer:
        document = orjson.loads(await answer.read())
        assert answer.headers["x-request-id"]
        return answer.status, document.get("error", "")


async def assert_unharmed(site: Site) -> None:
    body = orjson.dumps(simple())
    async with site.session.post("/v2/models/simple/infer", data=body) as answer:
        assert answer.status == 200
        assert (await answer.json())["outputs"][0]["data"] == ROW


JSON_BODIES: list[tuple[str, bytes, str, str]] = [
    ("V01", b"", "simple", "failed to parse the request JSON buffer"),
    ("V02 malformed", b'{"inputs": [', "simple", "line 1 column"),
    ("V02 trailing", b"{} x", "simple", "failed to parse the request JSON buffer"),
    ("V02 BOM", b"\xef\xbb\xbf{}", "simple", "failed to parse the request JSON buffer"),
    ("V02 UTF-16", "{}".encode("utf-16"), "simple", "failed to parse the request JSON buffer"),
    ("V03 array", b"[]", "simple", "expected a JSON object, got an array"),
    ("V03 number", b"1", "simple", "expected a JSON object, got an integer"),
    ("V03 null", b"null", "simple", "expected a JSON object, got null"),
    ("V04", b'{"x":' + b"[" * 100 + b"]" * 100 + b"}", "simple", "JSON nesting depth exceeds"),
    ("V05", b"[" * 200_000, "simple", "maximum allowed limit (100)"),
    ("V05 closed", b"[" * 200_000 + b"]" * 200_000, "simple", "maximum allowed limit (100)"),
    ("V05 hidden", b'["]]]]",' * 101 + b"]" * 101, "simple", "maximum allowed limit (100)"),
    ("V06", b'{"inputs":[],"inputs":[]}', "simple", "duplicate key 'inputs'"),
    ("V06 escaped", b'{"inputs":[],"inp\\u0075ts":[]}', "simple", "duplicate key 'inputs'"),
    ("V06 inner", b'{"inputs":[{"name":"a","name":"b"}]}', "simple", "duplicate key 'name'"),
    (
        "V07",
        json.dumps(ident("FP32", float("nan"))).encode(),
        "ident",
        "failed to parse the request JSON buffer",
    ),
    ("V08 1e999", json.dumps(ident("FP64", 7)).replace("7", "1e999").encode(), "ident_fp64", "inf"),
    ("V39 surrogate", b'{"id":"\\ud800"}', "simple", "surrogate"),
    ("V39 UTF-8", b'{"id":"\xff"}', "simple", "UTF-8"),
]


@pytest.mark.parametrize(("row", "body", "model", "text"), JSON_BODIES, ids=lambda v: str(v)[:16])
async def test_bodies_that_are_no_json_object_are_refused(
    site: Site, row: str, body: bytes, model: str, text: str
) -> None:
    status, error = await post(site, body, f"/v2/models/{model}/infer")
    assert status == 400, row
    assert text in error, row
    await assert_unharmed(site)


DOCUMENTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("V08 1e39", "ident", ident("FP32", 1e39), "out of range for FP32"),
    ("V09 int8", "ident_int8", ident("INT8", 300), "out of range for INT8"),
    ("V09 uint8", "ident_uint8", ident("UINT8", -1), "out of range for UINT8"),
    ("V09 int64", "ident_int64", ident("INT64", 2**63), "out of range for INT64"),
    ("V09 uint64", "ident_uint64", ident("UINT64", 2.0**64), "no UINT64"),
    ("V10", "ident_int32", ident("INT32", 1, 1.5), "element 1 is a number, which is no INT32"),
    ("V11 true", "ident", ident("FP32", True), "element 0 is a boolean, which is no FP32"),
    ("V11 2", "ident_bool", ident("BOOL", 2), "element 0 is an integer, which is no BOOL"),
    ("V12 string", "ident", ident("FP32", "1"), "is a string"),
    ("V12 object", "ident", ident("FP32", {}), "is an object"),
    ("V12 null", "ident", ident("FP32", None), "is null"),
    ("V12 list", "ident", ident("FP32", 1.0, [1.0]), "is an array"),
    ("V12 data", "simple", simple(data="x"), "'data' of input 'INPUT0' must be an array"),
    ("V13", "ident_2d", ident("FP32", [1.0, 2.0], [3.0], shape=[2, 2]), "differ in length"),
    ("V13 mixed", "ident_2d", ident("FP32", [1.0], 2.0, shape=[2, 1]), "differ in length"),
    ("V13 turned", "ident_2d", ident("FP32", [1, 2], [3, 4], [5, 6], shape=[2, 3]), "nested as"),
    ("V14 less", "simple", simple(data=ROW[1:]), "expected 16 elements for shape [1, 16], got 15"),
    ("V14 none", "simple", simple(data=[]), "expected 16 elements for shape [1, 16], got 0"),
    ("V14 more", "simple", simple(data=ROW * 1000), "expected 16 elements"),
    ("V15 name", "simple", simple(name=...), "inputs[0] has no 'name'"),
    ("V15 shape", "simple", simple(shape=...), "input 'INPUT0' has no 'shape'"),
    ("V15 datatype", "simple", simple(datatype=...), "input 'INPUT0' has no 'datatype'"),
    ("V15 empty", "simple", simple(name=""), "'name' of inputs[0] must be a string"),
    (
        "V16 absent",
        "opt",
        {},
        "expected 3 inputs but got 0 inputs for model 'opt'. Got input(s) []",
    ),
    ("V16 array", "opt", {"inputs": []}, "missing required input(s) ['INPUT0','INPUT1','INPUT2']"),
    ("V16 object", "opt", {"inputs": {}}, "expected 3 inputs but got 0 inputs"),
    ("V16 null", "opt", {"inputs": None}, "expected 3 inputs but got 0 inputs"),
    ("V16 number", "opt", {"inputs": 3}, "'inputs' of the request must be an array"),
    ("V16 items", "opt", {"inputs": [3]}, "inputs[0] must be an object"),
    ("V17", "simple", simple(name="X"), "unexpected inference input 'X' for model"),
    ("V18", "simple", simple(name="INPUT1"), "input 'INPUT1' already exists in request"),
    (
        "V19",
        "simple",
        simple() | {"outputs": [{"name": "OUTPUT0"}, {"name": "OUTPUT0"}]},
        "output 'OUTPUT0' already exists in request",
    ),
    ("V20", "simple", simple() | {"outputs": [{"name": "X"}]}, "unexpected inference output 'X'"),
    (
        "V21",
        "simple",
        simple(datatype="INT32", data=[1] * 16),
        "inference input 'INPUT0' data-type is 'INT32', but model 'simple' expects 'FP32'",
    ),
    ("V22 FP99", "simple", simple(datatype="FP99"), "invalid datatype 'FP99' of input 'INPUT0'"),
    ("V22 7", "simple", simple(datatype=7), "invalid datatype an integer"),
    ("V22 null", "simple", simple(datatype=None), "invalid datatype null"),
    (
        "V23",
        "simple",
        simple(shape=[1, 17], data=[1.0] * 17),
        "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1,17]",
    ),
    (
        "V24",
        "simple",
        {"inputs": [tensor(n, shape=[9, 16], data=ROW * 9) for n in ("INPUT0", "INPUT1")]},
        "inference request batch-size must be <= 8 for 'simple'",
    ),
    ("V25", "simple", simple(shape=[0, 16], data=[]), "batch"),
    ("V26", "simple", simple(shape=[-1, 16]), "must be positive"),
    ("V27 1.5", "simple", simple(shape=[1.5, 16]), "must hold integers, not a number"),
    ("V27 text", "simple", simple(shape=["1", 16]), "must hold integers, not a string"),
    ("V27 true", "simple", simple(shape=[True, 16]), "must hold integers, not a boolean"),
    ("V27 null", "simple", simple(shape=[None, 16]), "must hold integers, not null"),
    ("V27 2^64", "simple", simple(shape=[2.0**64, 16]), "must hold integers"),
    ("V27 number", "simple", simple(shape=16), "'shape' of input 'INPUT0' must be an array"),
    ("V28", "simple", simple(shape=[2**32, 2**32]), "causes total element count to exceed maximum"),
    ("V28 zero", "simple", simple(shape=[2**40, 2**40, 0], data=[]), "causes total element count"),
    ("V29", "simple", simple(shape=[2**31, 2**31]), "byte size overflow for input"),
    ("V30", "simple", simple(shape=[10**9, 10**9 // 2]), "expected 500000000000000000 elements"),
    ("V31", "simple", simple(shape=[1] * 10_000), "10000 dimensions, limit 64"),
    ("V33 neither", "simple", simple(data=...), "But no field was set"),
    (
        "V33 both",
        "simple",
        simple(parameters={"binary_data_size": 64}),
        "Input must set only one of the following fields",
    ),
    ("V41 FP16", "ident_fp16", ident("FP16", 1.0), "receiving FP16 data via JSON is not supported"),
    ("V41 BF16", "ident_bf16", ident("BF16", 1.0), "Please use the binary data format for input"),
    ("V43 priority", "simple", simple() | {"parameters": {"priority": -1}}, "'priority'"),
    ("V43 timeout", "simple", simple() | {"parameters": {"timeout": "x"}}, "'timeout'"),
    ("V43 2^63", "simple", simple() | {"parameters": {"p": 2**63}}, "must fit into 64 bits"),
    ("V43 nested", "simple", simple() | {"parameters": {"p": {}}}, "not an object"),
    ("V43 null", "simple", simple() | {"parameters": {"p": None}}, "not null"),
    (
        "V43 reserved",
        "simple",
        simple() | {"parameters": {"triton_x": 1}},
        "parameter keys starting with 'triton_' are reserved for Triton usage",
    ),
    ("V43 headers", "simple", simple() | {"parameters": {"headers": "x"}}, "reserved"),
    ("V43 list", "simple", simple() | {"parameters": []}, "'parameters' of the request must be an"),
    ("V43 flag", "simple", simple() | {"parameters": {"binary_data_output": 1}}, "a boolean"),
    ("V44 id", "simple", simple() | {"parameters": {"sequence_id": "x" * 129}}, "129 characters"),
    ("V44 float", "simple", simple() | {"parameters": {"sequence_id": 1.5}}, "'sequence_id'"),
    ("V45", "simple", simple() | {"id": "x" * 1_000_000}, "'id' of the request has 1000000"),
    ("V45 number", "simple", simple() | {"id": 7}, "'id' of the request must be a string"),
    (
        "V46",
        "simple",
        simple(data=..., parameters={"shared_memory_region": "x", "shared_memory_byte_size": 64}),
        "Unable to find shared memory region: 'x'",
    ),
    (
        "V46 size",
        "simple",
        simple(data=..., parameters={"shared_memory_region": "x"}),
        "shared_memory_byte_size",
    ),
]


@pytest.mark.parametrize(
    ("row", "model", "document", "text"), DOCUMENTS, ids=[row[0] for row in DOCUMENTS]
)
async def test_documents_that_contradict_the_protocol_or_the_model_are_refused(
    site: Site, row: str, model: str, document: dict[str, Any], text: str
) -> None:
    status, error = await post(site, orjson.dumps(document), f"/v2/models/{model}/infer")
    assert status == 400, row
    assert text in error, row
    assert site.core.requests == []
    await assert_unharmed(site)


def wish(**parameters: Any) -> dict[str, Any]:
    return {"outputs": [{"name": "OUTPUT0", "parameters": parameters}]}


@pytest.mark.parametrize(
    ("model", "document", "text"),
    [
        ("ident", ident("FP32", 1.0) | wish(classification=-1), "'classification'"),
        ("ident", ident("FP32", 1.0) | wish(classification=0), "'classification'"),
        ("ident", ident("FP32", 1.0) | wish(classification="a"), "'classification'"),
        ("ident_str", ident("BYTES", "a") | wish(classification=1), "unsupported type 'BYTES'"),
        ("ident", ident("FP32", 1.0) | wish(binary_data=1), "'binary_data'"),
        (
            "ident",
            ident("FP32", 1.0)
            | wish(binary_data=True, shared_memory_region="x", shared_memory_byte_size=4),
            "cannot have both",
        ),
        (
            "ident",
            ident("FP32", 1.0) | wish(shared_memory_region="x", shared_memory_byte_size=4),
            "Unable to find shared memory region: 'x'",
        ),
    ],
)
async def test_impossible_wishes_for_outputs_are_refused(
    site: Site, model: str, document: dict[str, Any], text: str
) -> None:
    status, error = await post(site, orjson.dumps(document), f"/v2/models/{model}/infer")
    assert status == 400
    assert text in error


@pytest.mark.parametrize(
    ("size", "tail", "text"),
    [
        (
            60,
            60,
            "input byte size mismatch for input 'INPUT0' for model 'ident'. Expected 64, got 60",
        ),
        (68, 68, "Expected 64, got 68"),
        (2**63 - 1, 64, "Expected 64, got 9223372036854775807"),
        (-1, 64, "'binary_data_size' of input 'INPUT0' must be from 0"),
        (2**63, 64, "'binary_data_size' of input 'INPUT0' must be from 0"),
        ("64", 64, "'binary_data_size' of input 'INPUT0' must be an integer"),
        (64, 60, "unexpected size for input 'INPUT0', expecting 4 additional bytes for model"),
        (64, 68, "unexpected additional input data for model 'ident'"),
    ],
)
async def test_binary_sizes_must_be_right_to_the_byte(
    site: Site, size: Any, tail: int, text: str
) -> None:
    header = orjson.dumps(binary(size))
    status, error = await post(
        site,
        header + bytes(tail),
        "/v2/models/ident/infer",
        Inference_Header_Content_Length=str(len(header)),
    )
    assert status == 400
    assert text in error
    await assert_unharmed(site)


@pytest.mark.parametrize("length", ["99999999999", "9" * 30, "-1", "abc", "", "1.0", "\u00b2", "5"])
async def test_a_header_length_that_is_none_is_refused(site: Site, length: str) -> None:
    body = orjson.dumps(binary(64)) + bytes(64)
    status, _ = await post(
        site, body, "/v2/models/ident/infer", Inference_Header_Content_Length=length
    )
    assert status == 400
    await assert_unharmed(site)


async def test_two_header_lengths_are_refused(site: Site) -> None:
    body = orjson.dumps(ident("FP32", 1.0))
    head = (
        "POST /v2/models/ident/infer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        f"Inference-Header-Content-Length: {len(body)}\r\n"
        f"Inference-Header-Content-Length: {len(body)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    answer = await site.send_raw(head.encode() + body)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"must be one decimal number" in answer


def packed(*elements: bytes) -> bytes:
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (packed(b"a", b"b")[:-1], "incomplete string data"),
        (packed(b"aaaa", b"b", b"cc") + b"\x01\x00\x00", "incomplete string length indicator"),
        (packed(b"a" * 20), "expected 2 string elements for inference input 'INPUT0'"),
        (packed(b"a", b"b", b"c"), "unexpected number of string elements 3"),
        (b"\xff\xff\xff\xff" + bytes(8), "only 8 bytes available"),
        (b"", "expected 2 string elements"),
    ],
)
async def test_packed_strings_that_do_not_add_up_are_refused(
    site: Site, raw: bytes, text: str
) -> None:
    header = orjson.dumps(binary(len(raw), "BYTES", [2]))
    status, error = await post(
        site,
        header + raw,
        "/v2/models/ident_str/infer",
        Inference_Header_Content_Length=str(len(header)),
    )
    assert status == 400
    assert text in error


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            "simple",
            "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in",
        ),
        ("ident_2d", "there are more than one variable-sized dimension"),
        ("ident_str", "For BYTE datatype raw input 'INPUT0', the model must have input shape [1]"),
        ("ident", "Expected 60, got 62"),
    ],
)
async def test_raw_bodies_that_cannot_be_understood_are_refused(
    site: Site, model: str, text: str
) -> None:
    status, error = await post(
        site, bytes(62), f"/v2/models/{model}/infer", Inference_Header_Content_Length="0"
    )
    assert status == 400
    assert text in error


@pytest.mark.parametrize("version", ["v1", "-1", "01", "1.0", "1" * 20, "0"])
async def test_a_version_that_is_no_number_is_refused(site: Site, version: str) -> None:
    status, error = await post(site, b"{}", f"/v2/models/simple/versions/{version}/infer")
    assert status == 400
    assert "failed to get model version from specified version string" in error


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v2/models/x/infer", 400, "Request for unknown model: 'x' is not found"),
        (
            "/v2/models/simple/versions/9/infer",
            404,
            "Request for unknown model: 'simple' version 9 is not found",
        ),
    ],
)
async def test_unknown_models_and_versions_are_told_apart(
    site: Site, path: str, status: int, text: str
) -> None:
    assert await post(site, orjson.dumps(simple()), path) == (status, text)


async def test_an_enormous_shape_takes_no_memory(site: Site) -> None:
    header = orjson.dumps(binary(4, shape=[10**9, 10**9]))
    status, error = await post(
        site,
        header + np.float32(1).tobytes(),
        "/v2/models/ident_2d/infer",
        Inference_Header_Content_Length=str(len(header)),
    )
    assert status == 400
    assert "Expected 4000000000000000000, got 4" in error
