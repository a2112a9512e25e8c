"""A client that has sent all and closes its half of the connection gets its answer, if that is
soon; one that has left looks alike, and is not computed for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from heard import hear, hear_bytes
from http_site import FakeCore, Site, echo, open_site
from patience import patience

from trivet.backends.api import CheckedRequest, InferResponse, Sink, Tensor
from trivet.server.http import connection

BODY = b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","data":[1]}]}'
HEAD = b"POST /v2/models/ident/infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n" % len(BODY)
DEADLINE = b"x-request-timeout: 1000\r\n"


class Held:
    """Requests of `ident` wait until they are let go."""

    def __init__(self, core: FakeCore) -> None:
        self.arrived = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.waiting: list[tuple[CheckedRequest, Sink]] = []
        core.responses["ident"] = self.hold

    def hold(self, request: CheckedRequest, sink: Sink) -> None:
        request.cancel.on_cancel(self.cancelled.set)
        self.waiting.append((request, sink))
        self.arrived.set()

    def let_go(self) -> None:
        self.arrived.clear()
        for request, sink in self.waiting:
            echo(request, sink)
        self.waiting.clear()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    opened = await open_site(FakeCore())
    yield opened
    await opened.close()


@asynccontextmanager
async def half_closed(site: Site, data: bytes) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(patience()):
        yield reader
    writer.close()


@pytest.mark.rows("H37a")
@pytest.mark.parametrize("is_known", [False, True], ids=["by a task", "by callbacks"])
@pytest.mark.parametrize("more", [b"", DEADLINE])
async def test_what_has_come_whole_is_answered_and_then_the_connection_ends(
    *, site: Site, is_known: bool, more: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HALF_CLOSED_S", patience())
    if is_known:
        await site.send_raw(HEAD + b"Connection: close\r\n\r\n" + BODY)
    held = Held(site.core)
    async with half_closed(site, HEAD + more + b"\r\n" + BODY) as reader:
        await held.arrived.wait()
        await asyncio.sleep(0)
        held.let_go()
        answer = await reader.read()
    hear_bytes(answer, is_closed=True)
    assert b"Connection: close" in answer
    assert not held.cancelled.is_set()


async def test_pipelined_requests_before_the_end_are_all_answered(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HALF_CLOSED_S", patience())
    held = Held(site.core)
    async with half_closed(site, (HEAD + b"\r\n" + BODY) * 3) as reader:
        for _ in range(3):
            await held.arrived.wait()
            held.let_go()
        answer = await reader.read()
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.count(b"Connection: close") == 1


@pytest.mark.rows("H37b")
@pytest.mark.parametrize("more", [b"", DEADLINE])
async def test_what_takes_longer_is_cancelled(
    site: Site, more: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HALF_CLOSED_S", 0.05)
    held = Held(site.core)
    async with half_closed(site, HEAD + more + b"\r\n" + BODY) as reader:
        await held.cancelled.wait()
        assert await reader.read() == b""
        hear(is_closed=True)


@pytest.mark.parametrize("data", [HEAD, HEAD + b"\r\n" + BODY[:9], b"", b"GET /v2"])
async def test_what_is_not_whole_ends_at_once(
    site: Site, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HALF_CLOSED_S", 10 * patience())
    async with half_closed(site, data) as reader:
        assert await reader.read() == b""


async def test_a_stream_is_whole_for_a_client_that_reads_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write asks whether the client is there; that it is, no time limit may overlook."""
    monkeypatch.setattr(connection, "HALF_CLOSED_S", 0.3)
    loop = asyncio.get_running_loop()

    def stream(_: CheckedRequest, sink: Sink) -> None:
        def send(number: int) -> None:
            text = Tensor.of("text_output", np.array([b"%d" % number], dtype=object))
            sink.send(InferResponse("llm", 1, "", [text]), final=number == 8)
            if number < 8:
                loop.call_later(0.1, send, number + 1)

        send(1)

    site.core.responses["llm"] = stream
    body = b'{"text_input": "x"}'
    head = b"POST /v2/models/llm/generate_stream HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    async with half_closed(site, head % len(body) + body) as reader:
        answer = await reader.read()
    assert answer.count(b"text_output") == 8
