"""What a connection's bytes are taken for: requests, requests and something else, or none."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator

import pytest
from http_site import FakeCore, Site, open_site
from patience import patience

GOOD = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","data":[1]}]}'
POST = b"POST /v2/models/ident/infer HTTP/1.1\r\nHost: a\r\n"
WHOLE = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    opened = await open_site(FakeCore())
    yield opened
    await opened.close()


async def statuses(site: Site, data: bytes) -> list[int]:
    answers = await site.send_raw(data)
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answers)]


@pytest.mark.rows("H36")
@pytest.mark.parametrize("garbage", [b"garbage\r\n\r\n", b"\0\1\r\n\r\n", b"GET\r\n\r\n"])
@pytest.mark.parametrize("good", [[GOOD], [WHOLE], [GOOD, WHOLE, GOOD]])
async def test_good_requests_before_garbage_are_answered_first(
    site: Site, good: list[bytes], garbage: bytes
) -> None:
    expected = [200] * len(good) + [400]
    assert await statuses(site, b"".join(good) + garbage) == expected


@pytest.mark.rows("H33")
@pytest.mark.parametrize(
    "line",
    [b"GET /v2/health/live", b"GET /v2/health/live HTTP/0.9", b"GET /v2/health/live HTTP/2.0"],
)
async def test_a_request_line_without_a_version_that_is_spoken_is_refused(
    site: Site, line: bytes
) -> None:
    assert await statuses(site, line + b"\r\nHost: a\r\n\r\n") == [400]


@pytest.mark.rows("H34")
@pytest.mark.parametrize("coding", [b"gzip, chunked", b"x,chunked", b"deflate ,  chunked"])
async def test_a_coding_of_the_message_that_nobody_decodes_is_not_implemented(
    site: Site, coding: bytes
) -> None:
    data = POST + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n"
    assert await statuses(site, data) == [501]


@pytest.mark.rows("H35")
@pytest.mark.parametrize("size", [b"FFFFFFFFFFFFFFFF", b"fffffffffffffff", b"4000001"])
@pytest.mark.parametrize("before", [b"", b"3\r\nabc\r\n"])
async def test_a_chunk_that_says_that_it_is_too_large_is_refused_before_it_comes(
    site: Site, before: bytes, size: bytes
) -> None:
    assert await statuses(site, CHUNKED + before + size + b"\r\n") == [413]


async def test_chunks_up_to_the_limit_are_taken(site: Site) -> None:
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    assert await statuses(site, CHUNKED + chunks + GOOD + b"garbage\r\n\r\n") == [200, 200, 400]


async def in_packets(site: Site, *packets: bytes) -> list[int]:
    """The statuses, where each packet is taken before the next is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for packet in packets:
        writer.write(packet)
        await writer.drain()
        # Another client's answer: the server has read this one's bytes.
        async with site.session.get("/v2/health/live"):
            pass
    async with asyncio.timeout(patience()):
        answers = await reader.read()
    writer.close()
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answers)]


CHUNKS = CHUNKED + b"5\r\n%b\r\n%x\r\n%b\r\n0\r\nx: y\r\n\r\n" % (
    BODY[:5], len(BODY) - 5, BODY[5:],
)  # fmt: skip
HUGE = CHUNKED + b"fffffffffffffff\r\n"


@pytest.mark.parametrize("first", [WHOLE, CHUNKS])
@pytest.mark.parametrize("back", [1, 5, 20, 90])
@pytest.mark.parametrize("garbage", [b"garbage\r\n\r\n", b"\0\1"])
async def test_good_requests_behind_the_end_of_a_body_are_answered_before_garbage(
    site: Site, first: bytes, back: int, garbage: bytes
) -> None:
    rest = first[-back:] + GOOD + WHOLE + garbage
    assert await in_packets(site, first[:-back], rest) == [200, 200, 200, 400]


@pytest.mark.parametrize("before", [[GOOD], [WHOLE], [CHUNKS], [GOOD, CHUNKS, WHOLE], [b"\r\n"]])
@pytest.mark.parametrize("chunk", [b"", b"3\r\nabc\r\n"])
async def test_a_chunk_that_is_too_large_is_refused_behind_other_requests_too(
    site: Site, before: list[bytes], chunk: bytes
) -> None:
    expected = [200] * sum(each.startswith((b"GET", b"POST")) for each in before)
    data = b"".join(before) + CHUNKED + chunk + b"fffffffffffffff\r\n"
    assert await statuses(site, data) == [*expected, 413]


@pytest.mark.parametrize("first", [WHOLE, CHUNKS])
async def test_a_chunk_that_is_too_large_is_refused_behind_the_end_of_a_body(
    site: Site, first: bytes
) -> None:
    assert await in_packets(site, first[:-20], first[-20:] + HUGE) == [200, 413]
