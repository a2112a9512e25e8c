"""S9: lifetimes. Requests are cancelled, models come and go and clients leave at any moment, and
afterwards everything is as before: descriptors, threads, processes, queues.

Orders of loads and unloads are row R18, storms of cancelled calls G09, of disconnects O40; the
states of one model are walked through in `tests/server/models/test_lifecycle.py`.
"""

import json
import random
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fault_models import write_model
from fault_room import (
    GOOD_DATA,
    MIB,
    Room,
    Vitals,
    good_body,
    good_message,
    json_input,
    open_files,
    pending,
)
from patience import patience

pytestmark = pytest.mark.usefixtures("unharmed")


def leave(room: Room, dice: random.Random) -> None:
    """Sends a request, or a part of one, and breaks off."""
    body = json.dumps({"inputs": [json_input(shape=[1, 4], data=GOOD_DATA)]}).encode()
    head = b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    data = head + body
    with room.connect() as connection:
        connection.sendall(data[: dice.choice([10, len(head), len(data) - 5, len(data)])])
        if dice.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def cancel(room: Room, dice: random.Random) -> None:
    """Calls and cancels at some moment."""
    message = good_message("slow", GOOD_DATA)
    message.inputs[0].shape[:] = [1, 4]
    stub = room.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    call = stub.future(message.SerializeToString(), timeout=patience())
    if dice.random() < 0.3:
        threading.Event().wait(dice.random() * 0.01)
    call.cancel()


def come_and_go(room: Room, dice: random.Random) -> None:
    verb = dice.choice(["load", "unload"])
    room.post(f"/v2/repository/models/fleeting/{verb}", b"{}")


def ask(room: Room, dice: random.Random) -> None:
    answer = room.post("/v2/models/fleeting/infer", good_body())
    if answer.status == 200:
        assert json.loads(answer.body)["outputs"][0]["data"] == GOOD_DATA
    else:
        assert answer.status in (400, 404, 503)


def churn(room: Room, seed: int) -> None:
    """Two hundred such steps, six at a time; then quiet."""
    dice = random.Random(seed)
    steps = [leave, cancel, cancel, come_and_go, ask, ask]
    with ThreadPoolExecutor(6) as pool:
        futures = [
            pool.submit(dice.choice(steps), room, random.Random(number)) for number in range(200)
        ]
        for future in futures:
            future.result()
    room.post("/v2/repository/models/fleeting/unload", b"{}")
    room.server.wait_until(lambda: pending(room.server) == 0, "emptied the queues")


def test_anything_at_any_moment_leaves_nothing_behind(room: Room) -> None:
    write_model(room.repository, "fleeting", inputs=[("INPUT0", "FP32", "4")])
    churn(room, 1)
    room.server.wait_until(lambda: num_sockets(room) <= 12, "closed the connections")
    room.baseline = Vitals.of(room.pid)
    for seed in (2, 3):
        churn(room, seed)
    room.assert_settled(64 * MIB)


def num_sockets(room: Room) -> int:
    return sum(name.startswith("socket:") for name in open_files(room.pid))
