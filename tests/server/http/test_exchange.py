"""Requests that are answered without a task: those that came whole, on a path asked before."""

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator

import numpy as np
import orjson
import pytest
from http_client import Client
from http_site import FakeCore, Site, echo, open_site
from patience import patience

from trivet.backends.api import CheckedRequest, InferResponse, QueueFull, Sink, Tensor
from trivet.server.http.app import HttpLimits

PATH = "/v2/models/ident/infer"
BODY = orjson.dumps(
    {"inputs": [{"name": "INPUT0", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}]}
)


def request(*lines: str, path: str = PATH, body: bytes = BODY) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


@pytest.fixture
async def client(site: Site) -> AsyncIterator[Client]:
    """Has asked the path before."""
    opened = Client(*await asyncio.open_connection("127.0.0.1", site.port))
    assert (await opened.ask(request()))[0] == 200
    yield opened
    opened.writer.close()


class Held:
    """A model that answers when the test says so."""

    def __init__(self, core: FakeCore) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.asked: list[tuple[CheckedRequest, Sink]] = []
        self.had_task: list[bool] = []
        core.responses["ident"] = self

    def __call__(self, asked: CheckedRequest, sink: Sink) -> None:
        self.had_task.append(asyncio.current_task() is not None)
        asked.cancel.on_cancel(self.cancelled.set)
        self.asked.append((asked, sink))
        self.begun.set()

    def answer(self) -> None:
        echo(*self.asked.pop(0))


@pytest.fixture
def held(core: FakeCore, client: Client) -> Held:
    return Held(core)


async def test_a_request_that_is_all_there_needs_no_task(client: Client, held: Held) -> None:
    client.send(request("x-request-id: mine"))
    await held.begun.wait()
    assert held.had_task == [False]
    held.answer()
    status, headers, body = await client.answer()
    assert (status, headers["x-request-id"], headers["content-type"]) == (
        200, "mine", "application/json",
    )  # fmt: skip
    assert orjson.loads(body)["outputs"][0]["data"] == [1.0, 2.0]


@pytest.mark.parametrize("line", ["x-request-timeout: 5", "Content-Encoding: identity"])
async def test_what_has_to_be_unpacked_or_ended_in_time_has_one(
    client: Client, held: Held, line: str
) -> None:
    client.send(request(line))
    await held.begun.wait()
    assert held.had_task == [True]
    held.answer()
    assert (await client.answer())[0] == 200


async def test_a_wrong_host_is_refused(client: Client) -> None:
    assert (await client.ask(request().replace(b"Host: a", b"Host: a b")))[0] == 400
    assert await client.is_closed()


async def test_a_body_in_pieces_is_waited_for(client: Client) -> None:
    data = request()
    client.send(data[:-5])
    await asyncio.sleep(0.05)
    client.send(data[-5:])
    assert (await client.answer())[0] == 200


async def test_binary_tensors_come_and_go(client: Client) -> None:
    values = np.array([3, 4], np.float32).tobytes()
    size = {"binary_data_size": 8}
    tensor = {"name": "INPUT0", "shape": [2], "datatype": "FP32", "parameters": size}
    text = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    length = f"Inference-Header-Content-Length: {len(text)}"
    status, headers, body = await client.ask(request(length, body=text + values))
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    assert body[int(headers["inference-header-content-length"]) :] == values


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(body=b"{"), 400),
        (request(body=b""), 400),
        (request("Inference-Header-Content-Length: 1e3"), 400),
        (request("Inference-Header-Content-Length: 9999"), 400),
    ],
    ids=str,
)
async def test_a_mistake_is_told_and_the_connection_goes_on(
    client: Client, data: bytes, status: int
) -> None:
    for _ in range(2):
        found, _, body = await client.ask(data)
        assert found == status
        assert orjson.loads(body)["error"]
    assert (await client.ask(request()))[0] == 200


async def test_errors_of_the_model_have_their_status(client: Client, core: FakeCore) -> None:
    core.responses["ident"] = lambda _, sink: sink.fail(QueueFull("full"))
    status, headers, _ = await client.ask(request())
    assert (status, headers["retry-after"]) == (503, "1")
    del core.responses["ident"]
    assert (await client.ask(request()))[0] == 200


async def test_an_internal_fault_is_logged_once_and_its_text_kept_back(
    client: Client, core: FakeCore, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(asked: CheckedRequest, sink: Sink) -> None:
        raise RuntimeError("swordfish")

    core.responses["ident"] = crash
    status, headers, body = await client.ask(request())
    assert status == 500
    assert b"swordfish" not in body
    assert headers["x-request-id"].encode() in body
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert PATH in record.getMessage()
    del core.responses["ident"]
    assert (await client.ask(request()))[0] == 200


async def test_models_that_answer_several_times_are_refused(client: Client, core: FakeCore) -> None:
    def twice(asked: CheckedRequest, sink: Sink) -> None:
        for _ in range(3):
            sink.send(InferResponse("ident", 1, "", []), final=False)
        sink.finish()

    core.responses["ident"] = twice
    status, _, body = await client.ask(request())
    assert status == 400
    assert b"got 2" in body
    assert core.requests[-1].cancel.cancelled


async def test_a_client_that_leaves_cancels_its_request(client: Client, held: Held) -> None:
    client.send(request())
    await held.begun.wait()
    client.writer.close()
    async with asyncio.timeout(patience()):
        await held.cancelled.wait()
    held.answer()  # Nobody is there any more.


async def test_requests_that_come_meanwhile_are_answered_in_order(
    client: Client, held: Held, core: FakeCore
) -> None:
    client.send(request("x-request-id: 1"))
    await held.begun.wait()
    client.send(request("x-request-id: 2"), request("x-request-id: 3")[:40])
    await asyncio.sleep(0.05)
    assert len(held.asked) == 1
    client.send(request("x-request-id: 3")[40:])
    del core.responses["ident"]
    held.answer()
    assert [(await client.answer())[1]["x-request-id"] for _ in range(3)] == ["1", "2", "3"]


async def test_a_drain_answers_it_and_closes(site: Site, client: Client, held: Held) -> None:
    client.send(request())
    await held.begun.wait()
    site.server.leave()
    drain = asyncio.ensure_future(site.server.drain(patience()))
    await asyncio.sleep(0.05)
    assert not drain.done()
    held.answer()
    status, headers, _ = await client.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert await client.is_closed()
    async with asyncio.timeout(patience()):
        await drain


async def test_a_drain_cancels_what_does_not_end_in_time(
    site: Site, client: Client, held: Held
) -> None:
    client.send(request())
    await held.begun.wait()
    async with asyncio.timeout(patience()):
        await site.server.drain(0.05)
        await held.cancelled.wait()
        assert await client.is_closed()


async def test_who_wants_the_connection_closed_gets_that(client: Client) -> None:
    status, headers, _ = await client.ask(request("Connection: close"))
    assert (status, headers["connection"]) == (200, "close")
    assert await client.is_closed()


async def test_a_client_that_does_not_read_gets_no_second_answer_before(
    client: Client, core: FakeCore
) -> None:
    large = Tensor.of("OUTPUT0", np.zeros(4_000_000, np.float32))

    def answer(asked: CheckedRequest, sink: Sink) -> None:
        sink.send(InferResponse("ident", 1, "", [large]), final=True)

    core.responses["ident"] = answer
    text = orjson.dumps({**orjson.loads(BODY), "parameters": {"binary_data_output": True}})
    data = request(body=text)
    before = len(core.requests)
    client.send(data)
    await asyncio.sleep(0.1)
    client.send(data)
    await asyncio.sleep(0.1)
    assert len(core.requests) == before + 1
    for _ in range(2):
        assert len((await client.answer())[2]) > 16_000_000
    del core.responses["ident"]
    assert (await client.ask(request()))[0] == 200


@pytest.mark.parametrize("count", [10, 1_000, 100_000])
async def test_answers_are_compressed_where_that_is_worth_it(client: Client, count: int) -> None:
    tensor = {"name": "INPUT0", "shape": [count], "datatype": "FP32", "data": [1.0] * count}
    body = orjson.dumps({"inputs": [tensor]})
    status, headers, packed = await client.ask(request("Accept-Encoding: gzip", body=body))
    assert status == 200
    assert ("content-encoding" in headers) == (count > 100)
    text = gzip.decompress(packed) if count > 100 else packed
    assert orjson.loads(text)["outputs"][0]["data"] == [1.0] * count


async def test_a_body_over_the_limit_is_refused(core: FakeCore) -> None:
    site = await open_site(core, HttpLimits(max_body_bytes=200))
    client = Client(*await asyncio.open_connection("127.0.0.1", site.port))
    try:
        assert (await client.ask(request()))[0] == 200
        status, headers, body = await client.ask(request(body=BODY + b" " * 200))
        assert (status, headers["connection"]) == (413, "close")
        assert b"--http-max-input-size" in body
        assert await client.is_closed()
    finally:
        client.writer.close()
        await site.close()
