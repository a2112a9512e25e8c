"""A head that came before is known by its bytes: nothing else may change by that."""

import asyncio
import logging
from collections.abc import AsyncIterator

import orjson
import pytest
from aiohttp import web
from http_client import Client
from http_site import FakeCore, Site, open_site

from trivet.server.http import at_once
from trivet.server.http.app import HttpLimits

PATH = "/v2/models/ident/infer"
BODY = orjson.dumps(
    {"inputs": [{"name": "INPUT0", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}]}
)
OTHER = BODY.replace(b"[1.0,2.0]", b"[3.0,4.0]")


def request(*lines: str, body: bytes = BODY) -> bytes:
    head = [f"POST {PATH} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


async def values_of(client: Client, data: bytes) -> list[float]:
    client.send(data)
    return await client.values()


async def connect(site: Site) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", site.port))


@pytest.fixture
async def client(site: Site) -> AsyncIterator[Client]:
    """Has sent the head before: for the route, and then to be known."""
    opened = await connect(site)
    for _ in range(3):
        assert await values_of(opened, request()) == [1.0, 2.0]
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


async def test_a_known_head_is_not_parsed_again(client: Client, parsed: list[bytes]) -> None:
    assert await values_of(client, request()) == [1.0, 2.0]
    assert await values_of(client, request(body=OTHER)) == [3.0, 4.0]
    assert parsed == []


async def test_it_is_known_on_other_connections(
    client: Client, site: Site, parsed: list[bytes]
) -> None:
    other = await connect(site)
    assert await values_of(other, request()) == [1.0, 2.0]
    del parsed[:]
    assert await values_of(other, request(body=OTHER)) == [3.0, 4.0]
    assert parsed == []
    other.writer.close()


async def test_one_more_byte_in_the_head_is_another_head(
    client: Client, parsed: list[bytes]
) -> None:
    data = request("X-Other: 1")
    assert await values_of(client, data) == [1.0, 2.0]
    assert parsed == [data]


async def test_every_answer_has_a_name_of_its_own(client: Client, parsed: list[bytes]) -> None:
    names = []
    for _ in range(3):
        client.send(request())
        names.append((await client.answer())[1]["x-request-id"])
    assert len(set(names)) == 3
    for _ in range(2):
        client.send(request("x-request-id: mine"))
        assert (await client.answer())[1]["x-request-id"] == "mine"


async def test_requests_in_one_packet_are_all_answered(client: Client) -> None:
    client.send(request() + request(body=OTHER) + request())
    assert [await client.values() for _ in range(3)] == [[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]
    assert await values_of(client, request(body=OTHER)) == [3.0, 4.0]


@pytest.mark.parametrize("cut", [3, 30, -len(BODY), -10], ids=str)
async def test_a_request_in_pieces_is_put_together(client: Client, cut: int) -> None:
    data = request(body=OTHER)
    client.send(data[:cut])
    await asyncio.sleep(0.05)
    assert await values_of(client, data[cut:]) == [3.0, 4.0]
    assert await values_of(client, request()) == [1.0, 2.0]


async def test_the_next_ones_beginning_behind_it_is_kept(client: Client) -> None:
    data = request(body=OTHER)
    assert await values_of(client, request() + data[:40]) == [1.0, 2.0]
    assert await values_of(client, data[40:]) == [3.0, 4.0]


async def test_a_body_that_looks_like_a_known_request_is_a_body(client: Client) -> None:
    inner = request(body=OTHER)
    client.send(request(body=inner))
    assert (await client.answer())[0] == 400
    data = request("X-Split: 1", body=inner)
    client.send(data[: -len(inner)])
    await asyncio.sleep(0.05)
    client.send(inner)
    assert (await client.answer())[0] == 400
    assert await values_of(client, request()) == [1.0, 2.0]


async def test_garbage_behind_a_known_request_is_refused(client: Client) -> None:
    client.send(request() + b"\x00garbage\r\n\r\n")
    assert await client.values() == [1.0, 2.0]
    assert (await client.answer())[0] == 400
    assert await client.is_closed()


async def test_two_lengths_are_no_known_head(client: Client, parsed: list[bytes]) -> None:
    client.send(request("Content-Length: 5"))
    assert (await client.answer())[0] == 400
    assert await client.is_closed()


async def test_chunks_are_never_known(client: Client, parsed: list[bytes]) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    for body in (BODY, OTHER + b" "):
        data = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        client.send(data)
        assert (await client.answer())[0] == 200
    assert len(parsed) >= 2


async def test_a_known_head_without_its_body_is_closed_in_time(core: FakeCore) -> None:
    site = await open_site(core, HttpLimits(head_timeout_s=0.2))
    try:
        client = await connect(site)
        for _ in range(3):
            await values_of(client, request())
        client.send(request()[:40])
        assert await client.is_closed()
        client.writer.close()
    finally:
        await site.close()


async def test_each_request_has_its_line_once_they_are_logged(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "trivet.server.http.door"):
        assert await values_of(client, request()) == [1.0, 2.0]
    assert [record.message for record in caplog.records if record.message == "access"]


async def test_no_more_heads_are_kept_than_there_is_room_for(
    client: Client, parsed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_once, "_REMEMBERED_HEADS", 2)
    for number in range(5):
        assert await values_of(client, request(f"X-Number: {number}")) == [1.0, 2.0]
    del parsed[:]
    assert await values_of(client, request()) == [1.0, 2.0]
    assert parsed, "the head from before is still kept"


async def test_long_heads_are_not_kept(client: Client, parsed: list[bytes]) -> None:
    data = request("X-Long: " + "a" * 3000)
    for _ in range(2):
        assert await values_of(client, data) == [1.0, 2.0]
    assert parsed == [data, data]


async def test_a_known_request_under_way_is_drained(site: Site, client: Client) -> None:
    site.server.leave()
    client.send(request())
    status, headers, _ = await client.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert await client.is_closed()


ODD = "/v2/models/ident_fp64/infer"
"""Of a model that refuses the body."""
HALF = f"POST {ODD} HTTP/1.1\r\nX: ".encode()
"""A head into which all lines of the next packet's fall."""


async def test_the_end_of_a_head_is_not_taken_for_a_whole_one(
    client: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever sends it decides what the same bytes mean for others."""
    head = request("X-Own: 1")
    stranger = await connect(site)
    stranger.send(request().replace(PATH.encode(), ODD.encode()))
    assert (await stranger.answer())[0] == 400
    for first in (b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n", request()):
        stranger.send(first + HALF)
        assert (await stranger.answer())[0] == 200
        stranger.send(head)
        assert (await stranger.answer())[0] == 400
        for _ in range(3):
            assert await values_of(client, head) == [1.0, 2.0]
    stranger.writer.close()


async def test_heads_that_name_one_request_are_not_kept(
    client: Client, parsed: list[bytes]
) -> None:
    trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for line in ("X-Request-Id: mine", trace):
        for _ in range(2):
            assert await values_of(client, request(line)) == [1.0, 2.0]
    assert len(parsed) == 4


@pytest.mark.parametrize("cut", [20, -3])
async def test_a_connection_whose_requests_came_in_pieces_knows_heads_again_if_it_can(
    client: Client, parsed: list[bytes], cut: int
) -> None:
    """If a body was cut: where the next message begins is counted. Not if a head was."""
    whole = request()
    client.send(whole[:cut])
    await asyncio.sleep(0.05)
    assert await values_of(client, whole[cut:]) == [1.0, 2.0]
    del parsed[:]
    for _ in range(3):
        assert await values_of(client, whole) == [1.0, 2.0]
    assert len(parsed) == (3 if cut > 0 else 0)
