"""More requests than can be computed: the surplus is refused at once, the rest served as ever."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import aiohttp
import grpc
import grpc.aio
import pytest
from fault_models import parameter, write_model
from fault_room import GOOD_DATA, MIB, Room, metric, pending
from patience import patience
from serving import RunningServer

from trivet.protos import grpc_service_pb2 as pb

pytestmark = pytest.mark.alone
Serve = Callable[..., RunningServer]
COMPUTE_S = round(patience(0.05), 3)
QUEUE_SIZE = 4
OVERLOAD = 5
REQUESTS = 25 * OVERLOAD
"""As many as come while 25 are computed."""


@dataclass(frozen=True)
class Outcome:
    """What came back, and after how long."""

    is_good: bool
    is_refused: bool
    """Told to try again later."""
    elapsed_s: float


@pytest.fixture(scope="module")
def room(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    models = tmp_path_factory.mktemp("overload")
    plain = [("INPUT0", "FP32", "4")]
    write_model(models, "good", inputs=plain)
    queue = f"dynamic_batching {{ default_queue_policy {{ max_queue_size: {QUEUE_SIZE} }} }}\n"
    delay = parameter("execute_delay_ms", int(COMPUTE_S * 1000))
    write_model(models, "narrow", max_batch_size=1, inputs=plain, more=delay + queue)
    room = Room(serve(models), models)
    yield room
    room.assert_unharmed()
    room.assert_settled(16 * MIB)
    room.close()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_at_five_times_the_load_the_surplus_is_refused_at_once_and_the_rest_is_served(
    room: Room, protocol: str
) -> None:
    with room.memory_bound(32 * MIB), room.lateness_bound(1.0):
        started_s = time.monotonic()
        outcomes = await (over_http(room) if protocol == "http" else over_grpc(room))
        elapsed_s = time.monotonic() - started_s
    assert all(each.is_good or each.is_refused for each in outcomes)
    served = sum(each.is_good for each in outcomes)
    # What fits into the time, less what a busy machine takes from it.
    assert served >= 0.5 * elapsed_s / COMPUTE_S
    refused = [each.elapsed_s for each in outcomes if each.is_refused]
    assert len(refused) > REQUESTS / 2
    assert median(refused) < COMPUTE_S / 2, "they have waited for something"
    waited = max(each.elapsed_s for each in outcomes if each.is_good)
    assert waited < (QUEUE_SIZE + 2) * COMPUTE_S + patience(1)
    assert pending(room.server) == 0


def test_refusals_are_counted_as_such(room: Room) -> None:
    assert metric(room.server, "nv_inference_request_failure", model="narrow", reason="REJECTED")[0]


async def open_loop(ask: Callable[[], "asyncio.Future[Outcome]"]) -> list[Outcome]:
    """Sends at an even pace, whatever becomes of the requests."""
    tasks = []
    began_s = time.monotonic()
    for number in range(REQUESTS):
        due_s = began_s + number * COMPUTE_S / OVERLOAD
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        tasks.append(ask())
    return list(await asyncio.gather(*tasks))


async def over_http(room: Room) -> list[Outcome]:
    given = {"name": "INPUT0", "shape": [1, 4], "datatype": "FP32", "data": GOOD_DATA}
    url = f"http://{room.server.http}/v2/models/narrow/infer"

    async def ask() -> Outcome:
        started_s = time.monotonic()
        async with session.post(url, json={"inputs": [given]}) as answer:
            text = await answer.read()
            is_refused = answer.status == 503 and answer.headers.get("Retry-After") == "1"
            if is_refused:
                assert b"Exceeds maximum queue size" in text
            elif answer.status == 200:
                assert json.loads(text)["outputs"][0]["data"] == GOOD_DATA
            return Outcome(answer.status == 200, is_refused, time.monotonic() - started_s)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        return await open_loop(lambda: asyncio.ensure_future(ask()))


async def over_grpc(room: Room) -> list[Outcome]:
    message = pb.ModelInferRequest(model_name="narrow")
    given = message.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 4])
    given.contents.fp32_contents.extend(GOOD_DATA)
    data = message.SerializeToString()

    async def ask() -> Outcome:
        started_s = time.monotonic()
        try:
            await infer(data, timeout=patience())
        except grpc.aio.AioRpcError as error:
            is_refused = error.code() is grpc.StatusCode.UNAVAILABLE
            return Outcome(False, is_refused, time.monotonic() - started_s)
        return Outcome(True, False, time.monotonic() - started_s)

    async with grpc.aio.insecure_channel(room.server.grpc) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        return await open_loop(lambda: asyncio.ensure_future(ask()))
