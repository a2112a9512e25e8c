"""S13: what errors tell. Whatever fails, wherever: no path, address, object, stack, environment or
memory of this machine is in a body, a header, a trailer or an event.

Every answer of the tables of bad input is swept the same way (`tests/fault_room.py`, `checked`).
"""

import json
import os
import platform
from typing import Any, cast

import grpc
import pytest
from fault_room import LEAKS, SERVICE, Room, read, read_all
from http_site import FakeCore, all_routes
from patience import patience

from trivet.protos import grpc_service_pb2 as pb
from trivet.server.core import Core
from trivet.server.grpc.service import Service

pytestmark = pytest.mark.usefixtures("unharmed")
FIELDS = ("inputs", "model", "parameters", "messages", "ready", "prompt", "key", "input")
BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "noise": bytes(range(256)),
    "numbers": json.dumps(dict.fromkeys(FIELDS, 5)).encode(),
    "objects": json.dumps({name: {} for name in FIELDS}).encode(),
    "formats": json.dumps(dict.fromkeys(FIELDS, "%s{0.__class__}{}{{7*7}}%n")).encode(),
    "surrogates": b'{"model": "\\ud800", "inputs": [], "messages": [{"role": "\\udfff"}]}',
}
NOISE = [b"", b"\xff" * 30, b"\x0a\x05{0.x}", b"\x0a\x03%s\0"]
NAMES = {
    "model": "%7B0.__class__%7D",
    "model*": "a%25s",
    "version": "1",
    "region": "%25s%25n",
    "region*": "%25s%25n",
    "response": "%25s%7B0%7D",
}


def told_of_us(text: str) -> list[str]:
    """What of this machine the text tells."""
    found = [match.group() for match in LEAKS.finditer(text)]
    private = {os.environ.get(name, "") for name in ("HOME", "PATH", "PWD", "VIRTUAL_ENV")}
    private |= {platform.node(), "site-packages", "/proc/", "/dev/shm", "at 0x"}
    return found + [value for value in private if len(value) > 3 and value in text]


@pytest.mark.parametrize("kind", BODIES)
def test_no_route_tells_of_the_machine(room: Room, kind: str) -> None:
    connection = room.http()
    for route in all_routes():
        method, template = route.method, route.template
        if template == "/metrics":
            continue
        path = template.format(**NAMES)
        body = BODIES[kind] if method == "POST" else b""
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = read(connection)
        if answer.status >= 400:
            whole = answer.body.decode("latin-1") + json.dumps(answer.headers)
            assert told_of_us(whole) == [], (method, path, whole)
            assert answer.status != 500, (method, path, whole)
            assert len(answer.body) < 8192
    connection.close()


@pytest.mark.parametrize("message", NOISE, ids=repr)
def test_no_call_tells_of_the_machine(room: Room, message: bytes) -> None:
    for path in Service(cast(Core, FakeCore())).rows():
        if path.endswith("StreamInfer"):
            continue
        try:
            room.call(path, message)
        except grpc.RpcError as error:
            call: Any = error
            trailers = [str(each) for each in (call.trailing_metadata() or ())]
            whole = " ".join([str(call.details()), *trailers])
            assert told_of_us(whole) == [], (path, whole)
            assert call.code() not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL), whole


def test_no_error_within_a_stream_tells_of_the_machine(room: Room) -> None:
    messages = []
    for model in ("failing", "{0.__class__}", "nobody", "crash"):
        message = pb.ModelInferRequest(model_name=model)
        message.inputs.add(name="INPUT0", datatype="FP32", shape=[4])
        message.raw_input_contents.append(bytes(16))
        messages.append(message.SerializeToString())
    stub = room.channel.stream_stream(SERVICE + "ModelStreamInfer")
    answers = list(stub(iter(messages), timeout=patience()))
    assert len(answers) == len(messages)
    for answer in answers:
        text = pb.ModelStreamInferResponse.FromString(answer).error_message
        assert text
        assert told_of_us(text) == []
        assert "swordfish" not in text


def test_no_event_of_a_broken_stream_tells_of_the_machine(room: Room) -> None:
    body = json.dumps({"INPUT0": [1.0, 2.0, 3.0, 4.0]}).encode()
    head = b"POST /v2/models/failing/generate_stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    with room.connect() as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        text = read_all(connection).decode("latin-1")
    assert "failed while executing" in text
    assert told_of_us(text) == []
    assert "swordfish" not in text
