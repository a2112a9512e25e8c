"""Minutes of one thing over and over: reloads under load, cancelled requests."""

import asyncio
import gc
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import grpc
import grpc.aio
import pytest
from fault_load import Callers, bystanders, callers
from fault_models import write_crash, write_model, write_slow_models
from fault_room import MIB, Room, good_message, metric, pending
from patience import patience
from serving import RunningServer, write_adder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Serve = Callable[..., RunningServer]
NUM_RELOADS = 1000
NUM_CANCELLED = 10_000
WAVE = 250


@pytest.fixture
def room(serve: Serve, models: Path) -> Iterator[Room]:
    write_model(models, "good", inputs=[("INPUT0", "FP32", "4")])
    write_adder(models, "adder", 1)
    write_crash(models)
    write_slow_models(models, 2)
    room = Room(serve(models, "--model-control-mode=explicit", "--load-model=*"), models)
    yield room
    room.assert_unharmed()
    room.close()
    assert room.server.stop() == 0


def adding(running: Callers, room: Room) -> None:
    """A caller of the model that is being reloaded."""
    connection = running.resources.enter_context(closing(room.http()))
    given = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}
    body = json.dumps({"inputs": [given]}).encode()

    def ask() -> str:
        connection.request("POST", "/v2/models/adder/infer", body)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        amount = json.loads(text)["outputs"][0]["data"][0] - 1
        assert amount in (1, 2), amount
        return f"added {amount:.0f}"

    running.add(ask)


def test_a_thousand_reloads_under_load_fail_no_request(room: Room) -> None:
    """The model's file changes each time, so each load is a new one."""
    files = [
        write_adder(room.repository.parent, "made", index, amount=index) / "model.onnx"
        for index in (1, 2)
    ]
    contents = [file.read_bytes() for file in files]
    target = room.repository / "adder" / "1" / "model.onnx"
    with callers() as running:
        for _ in range(2):
            adding(running, room)
        bystanders(running, room)
        for number in range(NUM_RELOADS):
            if number == NUM_RELOADS // 10:
                room.settle_baseline()
            fresh = target.with_name("fresh")
            fresh.write_bytes(contents[number % 2])
            fresh.rename(target)
            answer = room.post("/v2/repository/models/adder/load", b"{}")
            assert answer.status == 200, answer
    assert running.faults == [], f"{len(running.faults)}: {running.faults[:5]}"
    assert min(running.counts[f"added {amount}"] for amount in (1, 2)) > NUM_RELOADS / 4
    room.assert_settled(24 * MIB)
    print(dict(running.counts))


async def test_ten_thousand_cancelled_calls_leave_the_counters_balanced(room: Room) -> None:
    """Each request that arrived has one end, and none is left."""
    room.settle_baseline()
    before = ends(room)
    outcomes = await cancel_most(room)
    # Not in a blocking wait: the channel closes its connection on this loop.
    async with asyncio.timeout(patience()):
        while pending(room.server):
            await asyncio.sleep(0.1)
    gc.collect()  # cancelled calls hold their channel's connection
    await asyncio.sleep(0.5)
    success, failure = (now - then for now, then in zip(ends(room), before, strict=True))
    assert outcomes.total() == NUM_CANCELLED
    assert set(outcomes) <= {"OK", "CANCELLED"}
    assert outcomes["OK"] <= success, "an answer that was not counted"
    assert failure > NUM_CANCELLED / 4, "too few have been in the server"
    assert success + failure <= NUM_CANCELLED, "a request with two ends"
    room.assert_settled(24 * MIB)
    print(dict(outcomes), success, failure)


def slow_message() -> bytes:
    message = good_message("slow")
    message.inputs[0].shape[:] = [1, 4]
    return message.SerializeToString()


async def cancel_most(room: Room) -> Counter[str]:
    """Nine calls of ten, once they were sent; how all of them ended."""
    outcomes: Counter[str] = Counter()
    message = slow_message()
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(room.server.grpc, options=options) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(NUM_CANCELLED // WAVE):
            calls = [infer(message, timeout=patience()) for _ in range(WAVE)]
            await asyncio.sleep(0.05)  # some are computed by now, most wait
            for call in random.sample(calls, WAVE * 9 // 10):
                call.cancel()
            for call in calls:
                outcomes[(await call.code()).name] += 1
    return outcomes


def ends(room: Room) -> list[float]:
    """Requests of `slow` that were answered, and that failed."""
    return [
        sum(metric(room.server, f"nv_inference_request_{end}", model="slow"))
        for end in ("success", "failure")
    ]
