"""Rows V01-V60: wrong inference requests over HTTP against a running server, each with its answer.

The ids are those of docs/bad-input.md. The exhaustive lists of variants are in
`tests/server/http/test_bad_requests.py`; here every row goes the whole way once.

V57 (a step of an ensemble fails) and the half of V44 that needs a sequence batcher are tested with
those.
"""

import json
import mmap
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_input import case
from fault_models import write_held
from fault_room import (
    GOOD_DATA,
    MIB,
    Answer,
    Room,
    checked,
    good_body,
    good_message,
    json_input,
    pending,
    read,
    read_all,
    statistics,
)
from row_marks import by_row

from trivet.protos import grpc_service_pb2 as pb

pytestmark = pytest.mark.usefixtures("unharmed")
MAX_BODY_BYTES = 64 * MIB
LENGTH = "Inference-Header-Content-Length"
ONES = [1.0] * 16


@dataclass(frozen=True)
class Row:
    """One wrong request, and what its answer says besides what docs/bad-input.md tells."""

    id: str
    model: str
    body: bytes
    text: str
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.id


def document(row: str, model: str, value: Any, text: str) -> Row:
    return Row(row, model, json.dumps(value).encode(), text)


def pair(**changes: Any) -> dict[str, Any]:
    """A request to `simple`, whose first input has some fields changed."""
    return {"inputs": [json_input(**changes), json_input("INPUT1")]}


def one(datatype: str, *data: Any, **changes: Any) -> dict[str, Any]:
    """A request with one input of these values."""
    fields = {"datatype": datatype, "shape": [len(data)], "data": list(data)} | changes
    return {"inputs": [json_input(**fields)]}


def binary(row: str, model: str, raw: bytes, text: str, size: Any = None, **changes: Any) -> Row:
    """A request with one input behind the JSON part."""
    parameters = {"binary_data_size": len(raw) if size is None else size}
    head = json.dumps({"inputs": [json_input(data=..., parameters=parameters, **changes)]}).encode()
    return Row(row, model, head + raw, text, headers={LENGTH: str(len(head))})


def strings(*elements: bytes) -> bytes:
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def command(text: str) -> bytes:
    """A request to `crash`."""
    return json.dumps(
        {"inputs": [json_input("COMMAND", datatype="BYTES", shape=[1], data=[text])]}
    ).encode()


def command_message(text: str, model: str = "crash") -> bytes:
    """The same over gRPC."""
    message = pb.ModelInferRequest(model_name=model)
    message.inputs.add(name="COMMAND", datatype="BYTES", shape=[1])
    message.raw_input_contents.append(strings(text.encode()))
    return message.SerializeToString()


def outputs(*names: str, **parameters: Any) -> dict[str, Any]:
    return {"outputs": [{"name": name, "parameters": parameters} for name in names]}


PARSE = "failed to parse the request JSON buffer"
ROWS = [
    Row("V01", "simple", b"", PARSE),
    Row("V02 cut off", "simple", b'{"inputs": [', "column"),
    Row("V02 trailing", "simple", b"{} x", PARSE),
    Row("V02 BOM", "simple", b"\xef\xbb\xbf{}", PARSE),
    Row("V02 UTF-16", "simple", "{}".encode("utf-16"), PARSE),
    Row("V03 array", "simple", b"[]", "expected a JSON object"),
    Row("V03 number", "simple", b"1", "expected a JSON object"),
    Row("V03 null", "simple", b"null", "expected a JSON object"),
    Row(
        "V04",
        "simple",
        b'{"x":' + b"[" * (case("V04").numbers[0] - 1) + b"]" * 100 + b"}",
        "JSON nesting depth exceeds maximum allowed limit (100)",
    ),
    Row("V05", "simple", b"[" * case("V05").numbers[0],
        "JSON nesting depth exceeds maximum allowed limit (100)"),
    Row("V06", "simple", b'{"inputs":[],"inputs":[]}', "duplicate key 'inputs'"),
    Row("V07 NaN", "ident_fp32", json.dumps(one("FP32", float("nan"))).encode(), PARSE),
    Row("V07 Infinity", "ident_fp32", json.dumps(one("FP32", float("inf"))).encode(), PARSE),
    document("V08 1e39", "ident_fp32", one("FP32", 1e39), "out of range for FP32"),
    Row("V08 1e999", "ident_fp64", json.dumps(one("FP64", 7)).replace("7", "1e999").encode(), ""),
    document("V09 INT8", "ident_int8", one("INT8", 300), "out of range for INT8"),
    document("V09 UINT8", "ident_uint8", one("UINT8", -1), "out of range for UINT8"),
    document("V09 INT64", "ident_int64", one("INT64", 2**63), "out of range for INT64"),
    document("V10", "ident_int32", one("INT32", 1.5), "which is no INT32"),
    document("V11 true", "ident_fp32", one("FP32", True), "which is no FP32"),
    document("V11 2", "ident_bool", one("BOOL", 2), "which is no BOOL"),
    document("V12 string", "ident_fp32", one("FP32", "1"), "is a string"),
    document("V12 object", "ident_fp32", one("FP32", {}), "is an object"),
    document("V12 null", "ident_fp32", one("FP32", None), "is null"),
    document(
        "V13", "ident_2d", one("FP32", [1.0, 2.0], [3.0], shape=[2, 2]), "differ in length"
    ),
    document("V14 less", "simple", pair(data=ONES[1:]), "expected 16 elements"),
    document("V14 none", "simple", pair(data=[]), "got 0"),
    document("V14 many", "simple", pair(data=ONES * 10_000), "got 160000"),
    document("V15 name", "simple", pair(name=...), "inputs[0] has no 'name'"),
    document("V15 shape", "simple", pair(shape=...), "has no 'shape'"),
    document("V15 datatype", "simple", pair(datatype=...), "has no 'datatype'"),
    document(
        "V16 absent",
        "opt",
        {},
        "but got 0 inputs for model 'opt'. Got input(s) [], but missing required input(s) "
        "['INPUT0','INPUT1','INPUT2']. Please provide all required input(s).",
    ),
    document("V16 array", "opt", {"inputs": []}, "got 0 inputs"),
    document("V16 object", "opt", {"inputs": {}}, "got 0 inputs"),
    document("V16 null", "opt", {"inputs": None}, "got 0 inputs"),
    document("V17", "simple", pair(name="X"), "unexpected inference input 'X' for model"),
    document("V18", "simple", pair(name="INPUT1"), "input 'INPUT1' already exists in request"),
    document(
        "V19",
        "simple",
        pair() | outputs("OUTPUT0", "OUTPUT0"),
        "output 'OUTPUT0' already exists in request",
    ),
    document("V20", "simple", pair() | outputs("X"), "unexpected inference output 'X' for model"),
    document(
        "V21",
        "simple",
        pair(datatype="INT32", data=[1] * 16),
        "inference input 'INPUT0' data-type is 'INT32', but model 'simple' expects 'FP32'",
    ),
    document("V22 FP99", "simple", pair(datatype="FP99"), "invalid datatype 'FP99'"),
    document("V22 7", "simple", pair(datatype=7), "invalid datatype"),
    document("V22 null", "simple", pair(datatype=None), "invalid datatype"),
    document(
        "V23 dim",
        "simple",
        pair(shape=[1, 17], data=[1.0] * 17),
        "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1,17]",
    ),
    document("V23 rank", "simple", pair(shape=[16]), "Expected [-1,16], got [16]"),
    document(
        "V24",
        "simple",
        {"inputs": [json_input(n, shape=[9, 16], data=ONES * 9) for n in ("INPUT0", "INPUT1")]},
        "inference request batch-size must be <= 8 for 'simple'",
    ),
    document("V25", "simple", pair(shape=[0, 16], data=[]), "batch size 0"),
    document("V26", "simple", pair(shape=[-1, 16]), "must be positive"),
    document("V27 1.5", "simple", pair(shape=[1.5, 16]), "must hold integers"),
    document("V27 text", "simple", pair(shape=["1", 16]), "must hold integers"),
    document("V27 true", "simple", pair(shape=[True, 16]), "must hold integers"),
    document("V27 null", "simple", pair(shape=[None, 16]), "must hold integers"),
    Row("V27 2^64", "simple", json.dumps(pair(shape=[2**64, 16])).encode(), "must hold integers"),
    document(
        "V28",
        "simple",
        pair(shape=[2**32, 2**32]),
        "causes total element count to exceed maximum size of",
    ),
    document("V29", "simple", pair(shape=[2**31, 2**31]), "byte size overflow for input"),
    document("V31", "simple", pair(shape=[1] * case("V31").numbers[0]), "10000 dimensions"),
    binary("V32 60", "ident_raw", bytes(60), "Expected 64, got 60", shape=[16]),
    binary("V32 68", "ident_raw", bytes(68), "Expected 64, got 68", shape=[16]),
    binary("V32 -1", "ident_raw", bytes(64), "must be from 0", -1, shape=[16]),
    binary("V32 2^63", "ident_raw", bytes(64), "must be from 0", 2**63, shape=[16]),
    binary("V32 text", "ident_raw", bytes(64), "must be an integer", "64", shape=[16]),
    document("V33 neither", "simple", pair(data=...), "Input must set only one of the following"),
    document(
        "V33 both", "simple", pair(parameters={"binary_data_size": 64}), "Input must set only one"
    ),
    binary("V34", "ident_raw", bytes(68), "unexpected additional input data", 64, shape=[16]),
    *(
        Row(f"V35 '{value}'", "good", good_body(), "", headers={LENGTH: value})
        for value in ("99999", "99999999999", "-1", "abc", "", "1.5")
    ),
    Row(
        "V36 two inputs",
        "simple",
        bytes(128),
        "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in",
        headers={LENGTH: "0"},
    ),
    Row(
        "V36 two variable dims",
        "ident_2d",
        bytes(16),
        "more than one variable-sized dimension",
        headers={LENGTH: "0"},
    ),
    Row(
        "V36 BYTES",
        "ident_str",
        bytes(16),
        "For BYTE datatype raw input 'INPUT0', the model must have input shape [1]",
        headers={LENGTH: "0"},
    ),
    binary(
        "V37 past the end", "ident_str", b"\x05\0\0\0abc", "incomplete string data",
        shape=[1], datatype="BYTES",
    ),
    binary(
        "V37 tail", "ident_str", strings(b"abc") + b"\0\0\0", "incomplete string length indicator",
        shape=[2], datatype="BYTES",
    ),
    binary(
        "V37 too few", "ident_str", strings(*[b"abcdef"] * 14),
        "expected 16 string elements for inference input 'INPUT0'",
        shape=[16], datatype="BYTES",
    ),
    binary(
        "V37 too many", "ident_str", strings(*[b"a"] * 17),
        "unexpected number of string elements",
        shape=[16], datatype="BYTES",
    ),
    binary(
        "V38", "ident_str", b"\xff\xff\xff\xff" + bytes(8), "incomplete string data",
        shape=[1], datatype="BYTES",
    ),
    Row("V39 surrogate", "simple", b'{"id":"\\ud800"}', PARSE),
    Row("V39 UTF-8", "simple", b'{"id":"\xff"}', PARSE),
    document(
        "V41 FP16",
        "ident_fp16",
        one("FP16", 1.0),
        "receiving FP16 data via JSON is not supported. Please use the binary data format",
    ),
    document("V41 BF16", "ident_bf16", one("BF16", 1.0), "receiving BF16 data via JSON"),
    binary(
        "V41 output", "ident_fp16", bytes(2),
        "sending FP16 data via JSON is not supported. Please use the binary data format",
        shape=[1], datatype="FP16",
    ),
    document(
        "V42a -1", "ident_fp32", one("FP32", 1.0) | outputs("OUTPUT0", classification=-1),
        "'classification'",
    ),
    document(
        "V42a 0", "ident_fp32", one("FP32", 1.0) | outputs("OUTPUT0", classification=0),
        "'classification'",
    ),
    document(
        "V42a text", "ident_fp32", one("FP32", 1.0) | outputs("OUTPUT0", classification="a"),
        "'classification'",
    ),
    document(
        "V42b BYTES", "ident_str", one("BYTES", "a") | outputs("OUTPUT0", classification=1),
        "unsupported type 'BYTES'",
    ),
    document("V43 priority", "simple", pair() | {"parameters": {"priority": -1}}, "'priority'"),
    document("V43 timeout", "simple", pair() | {"parameters": {"timeout": "x"}}, "'timeout'"),
    document("V43 2^64", "simple", pair() | {"parameters": {"p": 2**64 - 1}}, "64 bits"),
    document("V43 nested", "simple", pair() | {"parameters": {"p": {"q": 1}}}, "not an object"),
    document(
        "V43 reserved",
        "simple",
        pair() | {"parameters": {"triton_x": 1}},
        "parameter keys starting with 'triton_' are reserved for Triton usage",
    ),
    document(
        "V44a long id", "simple", pair() | {"parameters": {"sequence_id": "x" * 129}}, "129"
    ),
    document(
        "V44a float id", "simple", pair() | {"parameters": {"sequence_id": 1.5}}, "'sequence_id'"
    ),
    document("V45a long", "simple", pair() | {"id": "x" * 1_000_000}, "1000000 characters"),
    document(
        "V46a",
        "simple",
        pair(data=..., parameters={"shared_memory_region": "x", "shared_memory_byte_size": 64}),
        "Unable to find shared memory region: 'x'",
    ),
    *(
        document(f"V51 {version}", f"simple/versions/{version}", pair(), "version")
        for version in ("v1", "-1", "01", "1.0", "1" * 20)
    ),
    *(
        document(
            f"V60 {count} responses",
            "decoupled",
            {"inputs": [json_input("IN", datatype="INT32", shape=[count], data=[1] * count)]},
            f"expected a single response, got {count}",
        )
        for count in (0, 2)
    ),
]  # fmt: skip


RIGHT: dict[str, dict[str, Any]] = {
    "simple": pair(),
    "good": one("FP32", *GOOD_DATA),
    "ident_fp32": one("FP32", 1.5, -2.0),
    "ident_int8": one("INT8", 1, -2),
    "ident_int64": one("INT64", 2**62),
    "ident_str": one("BYTES", "a", "b"),
    "ident_raw": one("FP32", *ONES),
    "opt": {"inputs": [json_input(f"INPUT{n}", shape=[1], data=[float(n)]) for n in range(3)]},
}
"""What the same models answer, exactly, right after a wrong request."""


@pytest.mark.parametrize("row", by_row(ROWS))
def test_a_wrong_request_has_its_own_answer(room: Room, row: Row) -> None:
    answer = room.post(f"/v2/models/{row.model}/infer", row.body, row.headers)
    assert row.text in answer.error
    if row.model in RIGHT:
        answer = room.post(f"/v2/models/{row.model}/infer", json.dumps(RIGHT[row.model]).encode())
        assert answer.status == 200, answer.body
        given = [each["data"] for each in RIGHT[row.model]["inputs"]]
        assert [each["data"] for each in json.loads(answer.body)["outputs"]] == given


@pytest.mark.rows("V30")
def test_v30_an_enormous_shape_takes_no_memory(room: Room) -> None:
    row = binary("V30", "ident_2d", bytes(4), "", shape=[10**9, 10**9])
    with room.memory_bound(1 * MIB):
        answer = room.post(f"/v2/models/{row.model}/infer", row.body, row.headers)
    assert "Expected 4000000000000000000, got 4" in answer.error


@pytest.mark.rows("V35")
def test_v35_two_header_lengths_are_refused(room: Room) -> None:
    body = good_body()
    head = f"POST /v2/models/good/infer HTTP/1.1\r\nHost: a\r\n{LENGTH}: 5\r\n{LENGTH}: 5\r\n"
    head += f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    assert room.send_raw(head.encode() + body).startswith(b"HTTP/1.1 400 ")


@pytest.mark.alone
@pytest.mark.rows("V37")
@pytest.mark.parametrize("num_elements", [1, 2**22])
@pytest.mark.parametrize("element", [b"", b"a"])
def test_v37_a_large_body_of_tiny_strings_costs_little(
    room: Room, num_elements: int, element: bytes
) -> None:
    """However many there are and however few were announced."""
    raw = strings(element) * (MAX_BODY_BYTES // len(strings(element)) - 256)
    row = binary("V37", "ident_str", raw, "", shape=[num_elements], datatype="BYTES")
    with room.memory_bound(3 * MAX_BODY_BYTES), room.lateness_bound(1.0):
        answer = room.post("/v2/models/ident_str/infer", row.body, row.headers)
    assert answer.status == 400
    assert f"unexpected number of string elements {num_elements + 1}" in answer.error


@pytest.mark.more_of("V37")
def test_v37_more_strings_than_can_be_found_in_time_are_refused(room: Room) -> None:
    row = binary("V37", "ident_str", bytes(64), "", shape=[2**22 + 1], datatype="BYTES")
    answer = room.post("/v2/models/ident_str/infer", row.body, row.headers)
    assert answer.status == 413
    assert "4194305 string elements, the limit is 4194304" in answer.error


@pytest.mark.rows("V40")
def test_v40_nul_in_a_string_is_kept(room: Room) -> None:
    body = json.dumps(one("BYTES", "a\0b")).encode()
    answer = room.post("/v2/models/ident_str/infer", body)
    assert answer.status == 200
    assert json.loads(answer.body)["outputs"][0]["data"] == ["a\0b"]


@pytest.mark.rows("V42b")
def test_v42_classes_of_too_many_elements_are_refused(room: Room) -> None:
    num_elements = 1_000_001
    wanted = outputs("OUTPUT0", classification=1)
    parameters = {"binary_data_size": num_elements}
    tensor = json_input(datatype="UINT8", shape=[num_elements], data=..., parameters=parameters)
    head = json.dumps({"inputs": [tensor]} | wanted).encode()
    headers = {LENGTH: str(len(head))}
    answer = room.post("/v2/models/ident_uint8/infer", head + bytes(num_elements), headers)
    assert answer.status == 400
    assert "classification output tensor too large" in answer.error


@pytest.mark.rows("V42c")
def test_v42_more_classes_than_there_are_is_all_of_them(room: Room) -> None:
    wanted = outputs("OUTPUT0", classification=99)
    answer = room.post(
        "/v2/models/ident_uint8/infer", json.dumps(one("UINT8", 7) | wanted).encode()
    )
    assert answer.status == 200
    assert json.loads(answer.body)["outputs"][0]["data"] == ["7:0"]


@pytest.mark.rows("V46b")
@pytest.mark.parametrize("kind", ["system", "cuda"])
def test_v46_the_status_of_a_region_that_is_not_there_is_not_found(room: Room, kind: str) -> None:
    assert "Unable to find" in room.server.get(f"/v2/{kind}sharedmemory/region/x/status")[1]


@pytest.mark.rows("V45b")
def test_v45_control_characters_in_an_id_are_returned_and_escaped_in_the_log(room: Room) -> None:
    forged = "x\nE1123 forged line \x1b[31m"
    body = good_body(id=forged)
    answer = room.post("/v2/models/good/infer", body)
    assert json.loads(answer.body)["id"] == forged
    message = good_message("failing")
    message.id = forged
    room.refusal("ModelInfer", message.SerializeToString())
    room.server.wait_until(lambda: any("forged" in o for o in room.server.output), "logged it")
    assert not any(line.startswith("E1123 forged") for line in room.server.output)
    assert not any("\x1b[31m" in line for line in room.server.output)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A shared memory object of 64 bytes."""
    path = Path("/dev/shm") / f"trivet-faults-{os.getpid()}"
    path.write_bytes(bytes(64))
    yield path
    path.unlink(missing_ok=True)


def register(room: Room, name: str, **fields: Any) -> Answer:
    body = json.dumps({"offset": 0, "byte_size": 64} | fields).encode()
    return room.post(f"/v2/systemsharedmemory/region/{name}/register", body)


@pytest.mark.rows("V47")
@pytest.mark.parametrize(
    ("offset", "size", "text"),
    [
        (65, 64, "Invalid offset for shared memory region"),
        (4, 64, "Invalid offset + byte size for shared memory region"),
        (2**63 - 1, 64, "Integer overflow detected: byte_size"),
    ],
)
def test_v47_a_slice_past_its_region_is_refused(
    room: Room, shared: Path, offset: int, size: int, text: str
) -> None:
    assert register(room, "r", key=f"/{shared.name}").status == 200
    place = {"shared_memory_region": "r", "shared_memory_byte_size": size}
    tensor = json_input(shape=[16], data=..., parameters=place | {"shared_memory_offset": offset})
    answer = room.post("/v2/models/ident_raw/infer", json.dumps({"inputs": [tensor]}).encode())
    assert room.post("/v2/systemsharedmemory/unregister", b"").status == 200
    assert answer.status == 400
    assert text in answer.error


@pytest.mark.rows("V48")
@pytest.mark.parametrize("key", ["../x", "/a/b", "", "///", "/..", "missing-object", "/a\0b"])
def test_v48_a_key_that_is_none_is_refused(room: Room, key: str) -> None:
    answer = register(room, "n", key=key)
    assert answer.status == 400
    assert "shared memory region 'n'" in answer.error


@pytest.mark.rows("V48")
@pytest.mark.parametrize(("field", "value"), [("byte_size", 65), ("byte_size", -1), ("offset", -1)])
def test_v48_a_size_that_is_none_is_refused(
    room: Room, shared: Path, field: str, value: int
) -> None:
    assert register(room, "n", **{"key": f"/{shared.name}", field: value}).status == 400


@pytest.mark.rows("V48")
def test_v48_a_name_is_registered_once(room: Room, shared: Path) -> None:
    assert register(room, "n", key=f"/{shared.name}").status == 200
    answer = register(room, "n", key=f"/{shared.name}")
    assert room.post("/v2/systemsharedmemory/region/n/unregister", b"").status == 200
    assert answer.status == 400
    assert "already in manager" in answer.error


@pytest.mark.rows("V49")
def test_v49_a_region_unregistered_while_it_is_used_harms_nobody(room: Room, shared: Path) -> None:
    place = {"shared_memory_region": "r", "shared_memory_byte_size": 16}
    tensor = json_input(shape=[1, 4], data=..., parameters=place)
    body = json.dumps({"inputs": [tensor]}).encode()
    assert register(room, "r", key=f"/{shared.name}").status == 200
    connection = room.http()
    connection.request("POST", "/v2/models/slow/infer", body)
    assert room.post("/v2/systemsharedmemory/region/r/unregister", b"").status == 200
    assert checked(read(connection)).status in (200, 400)
    connection.close()


@pytest.mark.rows("V49")
def test_v49_an_object_truncated_after_its_registration_is_an_error(
    room: Room, shared: Path
) -> None:
    place = {"shared_memory_region": "r", "shared_memory_byte_size": 64}
    body = json.dumps({"inputs": [json_input(shape=[16], data=..., parameters=place)]}).encode()
    with shared.open("r+b") as file:
        file.truncate(2 * mmap.PAGESIZE)
        assert register(room, "r", key=f"/{shared.name}", offset=mmap.PAGESIZE).status == 200
        file.truncate(0)
    answer = room.post("/v2/models/ident_raw/infer", body)
    assert room.post("/v2/systemsharedmemory/unregister", b"").status == 200
    assert answer.status == 400
    assert "Invalid offset + byte size" in answer.error


@pytest.mark.rows("V52")
def test_v52_a_model_that_is_loading_is_unavailable(room: Room) -> None:
    hold = write_held(room.repository)
    answers: list[Answer] = []
    load = threading.Thread(
        target=lambda: answers.append(room.post("/v2/repository/models/held/load", b""))
    )
    load.start()
    room.server.wait_until(
        lambda: room.server.index().get(("held", "1"), {}).get("state") == "LOADING", "began"
    )
    answer = room.post("/v2/models/held/infer", command("ok"))
    room.refusal("ModelInfer", command_message("ok", "held"))
    hold.unlink()
    load.join()
    assert answers[0].status == 200
    assert "'held' has no available versions" in answer.error
    assert room.post("/v2/models/held/infer", command("ok")).status == 200
    assert room.post("/v2/repository/models/held/unload", b"").status == 200


def slow_message(model: str) -> bytes:
    message = pb.ModelInferRequest(model_name=model)
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 4])
    message.raw_input_contents.append(np.array(GOOD_DATA, np.float32).tobytes())
    return message.SerializeToString()


def burst(room: Room, model: str, count: int, last: bytes) -> list[Answer]:
    """The answers to as many requests at once, and one over gRPC behind them, which is refused."""
    tensor = json_input(data=GOOD_DATA, shape=[1, 4])
    body = json.dumps({"inputs": [tensor]}).encode()
    connections = [room.http() for _ in range(count)]
    for connection in connections:
        connection.request("POST", f"/v2/models/{model}/infer", body)
    room.server.wait_until(lambda: pending(room.server) > 0, "queued")
    room.refusal("ModelInfer", last)
    answers = [checked(read(connection)) for connection in connections]
    for connection in connections:
        connection.close()
    return answers


@pytest.mark.rows("V53")
def test_v53_a_full_queue_refuses(room: Room) -> None:
    answers = burst(room, "narrow", 5, slow_message("narrow"))
    refused = [answer for answer in answers if answer.status != 200]
    assert 2 <= len(refused) <= 4
    assert all("Exceeds maximum queue size" in answer.error for answer in refused)
    assert all(answer.headers["retry-after"] for answer in refused)


@pytest.mark.rows("V54")
def test_v54_a_request_that_waits_too_long_is_refused(room: Room) -> None:
    answers = burst(room, "hasty", 3, slow_message("hasty"))
    first, *_ = sorted(answers, key=lambda answer: answer.status)
    assert first.status == 200
    late = next(answer for answer in answers if answer.status != 200)
    assert "Request timeout expired" in late.error


@pytest.mark.rows("V55")
def test_v55_a_process_that_dies_fails_its_request_and_comes_back(room: Room) -> None:
    def ask(word: str) -> Answer:
        return room.post("/v2/models/crash/infer", command(word))

    assert ask("ok").status == 200
    assert "died while executing" in ask("exit").error
    room.server.wait_until(lambda: ask("ok").status == 200, "came back")
    room.refusal("ModelInfer", command_message("exit"))
    room.server.wait_until(lambda: ask("ok").status == 200, "came back")


@pytest.mark.rows("V56")
def test_v56_an_exception_in_a_python_model_tells_nothing(room: Room) -> None:
    answer = room.post("/v2/models/crash/infer", command("raise"))
    assert "model 'crash' failed while executing; the server log has the details" in answer.error
    room.refusal("ModelInfer", command_message("raise"))


@pytest.mark.rows("V56")
@pytest.mark.parametrize(
    ("model", "text"), [("failing", "the server log has"), ("refusing", "no more ink")]
)
def test_v56_a_model_that_raises_is_answered_for(room: Room, model: str, text: str) -> None:
    body = json.dumps(one("FP32", *GOOD_DATA)).encode()
    assert text in room.post(f"/v2/models/{model}/infer", body).error
    assert text in room.refusal("ModelInfer", good_message(model).SerializeToString())[1]


@pytest.mark.rows("V50b")
def test_v50_a_version_that_is_not_there_is_not_found(room: Room) -> None:
    text = "Request for unknown model: 'good' version 9 is not found"
    assert text in room.post("/v2/models/good/versions/9/infer", good_body()).error
    message = good_message("good")
    message.model_version = "9"
    assert text in room.refusal("ModelInfer", message.SerializeToString())[1]


@pytest.mark.rows("V50a")
def test_v50_a_model_that_is_not_there_is_no_valid_argument(room: Room) -> None:
    text = "Request for unknown model: 'nobody' is not found"
    assert text in room.post("/v2/models/nobody/infer", good_body()).error
    assert text in room.refusal("ModelInfer", good_message("nobody").SerializeToString())[1]


@pytest.mark.rows("V58")
def test_v58_infinite_outputs_are_literals_as_in_triton(room: Room) -> None:
    row = binary("V58", "ident_fp32", b"\0\0\x80\x7f\0\0\xc0\x7f", "", shape=[2])
    answer = room.post("/v2/models/ident_fp32/infer", row.body, row.headers)
    assert answer.status == 200
    assert b"[Infinity, NaN]" in answer.body


@pytest.mark.rows("V59")
def test_v59_outputs_over_the_limit_are_refused(room: Room) -> None:
    size = 9 * MIB
    row = binary("V59", "ident_fp32", bytes(4 * size), "", shape=[size])
    answer = room.post("/v2/models/ident_fp32/infer", row.body, row.headers)
    text = "answered with 37748736 bytes of outputs; the limit is 33554432 bytes"
    assert f"model 'ident_fp32' {text} (--max-response-size)" in answer.error
    message = pb.ModelInferRequest(model_name="ident_fp32")
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[size])
    message.raw_input_contents.append(bytes(4 * size))
    assert text in room.refusal("ModelInfer", message.SerializeToString())[1]


def test_every_refusal_is_counted_or_never_became_a_request(room: Room) -> None:
    """Requests that contradict the model are refused before they count as its own."""
    before = statistics(room.server, "simple")["inference_stats"]["fail"]["count"]
    room.post("/v2/models/simple/infer", json.dumps(pair(name="X")).encode())
    assert statistics(room.server, "simple")["inference_stats"]["fail"]["count"] == before


def test_a_client_that_goes_away_in_mid_body_leaves_nothing(room: Room) -> None:
    for _ in range(50):
        with room.connect() as connection:
            connection.sendall(
                b"POST /v2/models/good/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{"
            )
    with room.connect() as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")
