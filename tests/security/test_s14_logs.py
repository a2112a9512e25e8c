"""S14: logs. A client writes no lines of its own into them, no commands to a terminal, and not
much; secrets never get there. Keys are in `tests/server/auth/test_server.py`, ids are row V45."""

import json
import re

import pytest
from fault_room import Room, good_message

from trivet.protos import grpc_service_pb2 as pb

pytestmark = pytest.mark.usefixtures("unharmed")
FORGED = "E1125 00:00:00.000000 1 app:1] forged"
INJECTIONS = [
    f"x\n{FORGED}",
    f"x\r\n{FORGED}",
    f"x\r{FORGED}",
    f"x\u2028{FORGED}",
    f"x\x85{FORGED}",
    f"x\x0b{FORGED}",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b31m",
    "%s%s%n%d",
    "${jndi:ldap://127.0.0.1:1/a}",
    "\u202egnp.exe",
]
TERMINAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def say(room: Room, text: str) -> None:
    """The text, everywhere where it may end up in a log line."""
    body = json.dumps({"id": text, "inputs": [], "parameters": {text: text}}).encode()
    quoted = "".join(f"%{byte:02x}" for byte in text.encode())
    room.post("/v2/models/failing/infer", body)
    room.post(f"/v2/models/{quoted}/infer", body)
    room.post(f"/v2/repository/models/{quoted}/load", b"{}")
    room.post("/v1/completions", json.dumps({"model": text, "prompt": text}).encode())
    failing = good_message("failing")
    failing.id = text
    room.refusal("ModelInfer", failing.SerializeToString())
    failing.model_name = text
    room.refusal("ModelInfer", failing.SerializeToString())
    load = pb.RepositoryModelLoadRequest(model_name=text)
    room.refusal("RepositoryModelLoad", load.SerializeToString())


@pytest.mark.parametrize("text", INJECTIONS, ids=ascii)
def test_no_client_writes_a_line_or_a_command(room: Room, text: str) -> None:
    before = len(room.server.output)
    say(room, text)
    room.assert_unharmed()
    logged = room.server.output[before:]
    assert not any(line.startswith(FORGED) for line in logged)
    assert not any(TERMINAL.search(line.rstrip("\n")) for line in logged), logged


def test_a_client_writes_little(room: Room) -> None:
    """A megabyte of id, name or header is no megabyte of log."""
    before = len(room.server.output)
    say(room, "x" * 100_000)
    room.post("/v2/models/failing/infer", b"{}", {"x-request-id": "y" * 7000})
    room.assert_unharmed()
    assert sum(map(len, room.server.output[before:])) < 64 * 1024


def test_what_is_asked_is_not_logged(room: Room) -> None:
    """Tensors and prompts are the clients' own."""
    before = len(room.server.output)
    text = "swordfish-in-a-tensor"
    given = {"name": "INPUT0", "shape": [1], "datatype": "BYTES", "data": [text]}
    answer = room.post("/v2/models/ident_str/infer", json.dumps({"inputs": [given]}).encode())
    assert answer.status == 200
    room.post("/v2/models/ident_str/infer", json.dumps({"inputs": [given, given]}).encode())
    room.post("/v1/completions", json.dumps({"model": "m", "prompt": text}).encode())
    room.assert_unharmed()
    assert not any(text in line for line in room.server.output[before:])
