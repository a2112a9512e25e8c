"""Large bodies behind a known head are read into their place; all else about them is as before."""

import asyncio
import re
from collections.abc import AsyncIterator

import numpy as np
import orjson
import pytest
from aiohttp import web
from http_client import Client
from http_site import FakeCore, Site, open_site
from patience import patience

from trivet.server.http.app import HttpLimits
from trivet.server.http.in_place import LARGE_BYTES

VALUES = np.arange(LARGE_BYTES, dtype=np.float32)
SMALL = HttpLimits(body_idle_timeout_s=0.3)


def request(values: np.ndarray = VALUES, *lines: str) -> bytes:
    tensor = {
        "name": "INPUT0",
        "shape": [values.size],
        "datatype": "FP32",
        "parameters": {"binary_data_size": values.nbytes},
    }
    header = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    head = [
        "POST /v2/models/ident/infer HTTP/1.1",
        "Host: a",
        f"Inference-Header-Content-Length: {len(header)}",
        f"Content-Length: {len(header) + values.nbytes}",
    ]
    return "\r\n".join([*head, *lines, "", ""]).encode() + header + values.tobytes()


async def connect(site: Site) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", site.port))


async def echoed(client: Client) -> np.ndarray:
    status, headers, body = await client.answer()
    assert status == 200, body
    return np.frombuffer(body[int(headers["inference-header-content-length"]) :], np.float32)


async def _knowing(site: Site) -> Client:
    """Has sent the head before: for the route, and then to be known."""
    opened = await connect(site)
    for _ in range(2):
        opened.send(request())
        assert (await echoed(opened) == VALUES).all()
    return opened


@pytest.fixture
async def client(site: Site) -> AsyncIterator[Client]:
    opened = await _knowing(site)
    yield opened
    opened.writer.close()


@pytest.fixture
def parsed(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What aiohttp's protocol is given from now on."""
    given: list[bytes] = []
    parse = web.RequestHandler.data_received

    def record(handler: web.RequestHandler, data: bytes) -> None:
        given.append(data)
        parse(handler, data)

    monkeypatch.setattr(web.RequestHandler, "data_received", record)
    return given


async def test_a_large_body_is_not_parsed_and_lies_aligned(
    client: Client, core: FakeCore, parsed: list[bytes]
) -> None:
    for values in (VALUES, VALUES[::-1]):
        client.send(request(values))
        assert (await echoed(client) == values).all()
        assert core.requests[-1].inputs["INPUT0"].numpy().ctypes.data % 64 == 0
    assert parsed == []


async def test_what_follows_in_the_same_packet_is_the_next_request(client: Client) -> None:
    client.send(request(), request(VALUES[:4]), request(VALUES[::-1]))
    assert (await echoed(client) == VALUES).all()
    assert (await echoed(client) == VALUES[:4]).all()
    assert (await echoed(client) == VALUES[::-1]).all()


@pytest.mark.parametrize("cut", [20, 180, 5000, -1], ids=str)
async def test_a_body_in_pieces_is_put_together(client: Client, cut: int) -> None:
    data = request(VALUES[::-1])
    client.send(data[:cut])
    await client.writer.drain()
    await asyncio.sleep(0.05)
    client.send(data[cut:])
    assert (await echoed(client) == VALUES[::-1]).all()
    client.send(request())
    assert (await echoed(client) == VALUES).all()


async def test_a_client_that_leaves_in_its_middle_has_asked_nothing(
    client: Client, site: Site, core: FakeCore
) -> None:
    num_before = len(core.requests)
    client.send(request()[:-10])
    await client.writer.drain()
    client.writer.close()
    other = await _knowing(site)
    other.writer.close()
    assert len(core.requests) == num_before + 2
    async with asyncio.timeout(patience()):
        while site.server.num_connections:
            await asyncio.sleep(0.01)


async def test_one_that_expects_to_be_asked_for_the_body_is(client: Client) -> None:
    data = request(VALUES, "Expect: 100-continue")
    head = data.find(b"\r\n\r\n") + 4
    for _ in range(2):
        client.send(data[:head])
        async with asyncio.timeout(patience()):
            assert b" 100 " in await client.reader.readuntil(b"\r\n\r\n")
        client.send(data[head:])
        assert (await echoed(client) == VALUES).all()


async def test_one_that_pauses_is_told(core: FakeCore) -> None:
    site = await open_site(core, SMALL)
    try:
        client = await _knowing(site)
        client.send(request()[:-10])
        status, _, body = await client.answer()
        assert status == 408
        assert b"too slowly" in body
        assert await client.is_closed()
        client.writer.close()
    finally:
        await site.close()


async def test_who_waits_for_leave_to_send_is_told(site: Site) -> None:
    """Also behind a head that came with all of its body before."""
    opened = await connect(site)
    values = VALUES[: LARGE_BYTES // 4]
    data = request(values, "Expect: 100-continue")
    head = data.find(b"\r\n\r\n") + 4
    told = b"HTTP/1.1 100 Continue\r\n\r\n"
    for sent in (data, data, data[:head]):
        opened.send(sent)
        async with asyncio.timeout(patience()):
            begun = await opened.reader.readuntil(b"\r\n\r\n")
            if begun == told:
                opened.send(data[len(sent) :])
                begun = await opened.reader.readuntil(b"\r\n\r\n")
            else:
                assert sent == data
            (length,) = re.findall(rb"\r\ncontent-length: (\d+)", begun.lower())
            body = await opened.reader.readexactly(int(length))
        assert body.endswith(values.tobytes())
    opened.writer.close()
