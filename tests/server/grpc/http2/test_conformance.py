"""Cases of RFC 9113 and RFC 7541 that conformance suites try and ordinary clients never meet."""

import asyncio
import socket

import hpack
import pytest
from grpc_peer import Peer, connect, echo, head, message
from grpc_site import Site
from patience import patience

from trivet.server.grpc.http2 import frames
from trivet.server.grpc.http2.flood import MAX_CANCELS
from trivet.server.grpc.http2.frames import (
    END_STREAM,
    PADDED,
    PREFACE,
    ErrorCode,
    Kind,
    Setting,
    frame,
)
from trivet.server.grpc.http2.heads import Head, HeadDecoder

HOLD = (":path", "/t.T/Hold")


async def test_a_message_in_one_large_padded_frame_is_answered(site: Site) -> None:
    peer = await connect(site)
    body = message(b"x" * 100_000)
    more = (100_000).to_bytes(4, "big")
    peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 200_000}))
    peer.send(frame(Kind.WINDOW_UPDATE, 0, 0, more))
    peer.send(head(1), frame(Kind.DATA, PADDED | END_STREAM, 1, b"\2" + body + b"\0\0"))
    await peer.headers(1)
    answer = b""
    while len(answer) < len(body):
        answer += (await peer.until(Kind.DATA, 1))[1]
    assert answer == body


async def test_the_head_of_a_large_padded_frame_keeps_nothing_busy(site: Site) -> None:
    """The next call on another connection runs in a loop that has nothing else to do."""
    peer = await connect(site)
    peer.send(head(1), frames.frame_head(100_000, Kind.DATA, PADDED, 1))
    await peer.until(Kind.SETTINGS)
    turns = 0
    other = await connect(site)
    other.send(echo(1))
    answer = asyncio.ensure_future(other.answer(1))
    while not answer.done():
        await asyncio.sleep(0)
        turns += 1
    assert answer.result() == b"hello"
    (reader,) = [each._reader for each in site.transport._connections if each._calls._calls.get(1)]
    assert not reader.has_backlog


async def test_a_client_that_sent_such_a_head_and_left_is_let_go(site: Site) -> None:
    peer = await connect(site)
    peer.send(head(1), frames.frame_head(100_000, Kind.DATA, PADDED, 1))
    await peer.until(Kind.SETTINGS)
    peer.writer.close()
    async with asyncio.timeout(patience()):
        while site.transport._connections:
            await asyncio.sleep(0.01)


async def test_data_on_a_stream_that_its_client_ended_is_answered_by_stream_closed(
    site: Site,
) -> None:
    peer = await connect(site)
    peer.send(echo(1))
    assert await peer.answer(1) == b"hello"
    peer.send(frame(Kind.DATA, 0, 1, b"more"), echo(3))
    assert await peer.reset(1) is ErrorCode.STREAM_CLOSED
    assert await peer.answer(3) == b"hello"


async def test_data_that_was_on_its_way_when_a_call_failed_is_let_pass(site: Site) -> None:
    peer = await connect(site)
    peer.send(head(1, (":path", "/x/y")))
    assert await peer.status(1) == "12"
    peer.send(frame(Kind.DATA, END_STREAM, 1, message(b"late")), echo(3))
    assert await peer.reset(1) is ErrorCode.NO_ERROR
    found = await peer.frame()
    while found[0] not in (Kind.HEADERS, Kind.RST_STREAM):
        found = await peer.frame()
    assert (found[0], found[2]) == (Kind.HEADERS, 3)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(Kind.PRIORITY, 0, 0, bytes(5)), ErrorCode.PROTOCOL_ERROR),
        (frame(Kind.GOAWAY, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    ],
    ids=["PRIORITY on stream 0", "GOAWAY of 7 bytes"],
)
async def test_a_frame_of_the_connection_that_is_wrong_ends_it(
    site: Site, data: bytes, code: ErrorCode
) -> None:
    peer = await connect(site)
    peer.send(data)
    assert await peer.goaway() is code


@pytest.mark.parametrize(
    "change",
    [("te", "gzip"), ("content-length", "-1"), ("content-length", "many")],
    ids=lambda change: f"{change[0]}: {change[1]}",
)
async def test_a_head_with_a_value_that_may_not_be_costs_its_stream(
    site: Site, change: tuple[str, str]
) -> None:
    peer = await connect(site)
    peer.send(head(1, change), echo(3))
    assert await peer.reset(1) is ErrorCode.PROTOCOL_ERROR
    assert await peer.answer(3) == b"hello"


def test_an_empty_path_is_malformed() -> None:
    encoder = hpack.Encoder()
    fields = [(":method", "POST"), (":scheme", "http"), (":path", ""), ("te", "trailers")]
    decoded = HeadDecoder().decode(encoder.encode(fields))
    assert not isinstance(decoded, Head)
    assert decoded.block == b""


@pytest.mark.parametrize("length", [1, 9, 11, 10_000])
async def test_a_content_length_that_is_not_what_comes_costs_the_stream(
    site: Site, length: int
) -> None:
    peer = await connect(site)
    peer.send(head(1, ("content-length", str(length))))
    peer.send(frame(Kind.DATA, END_STREAM, 1, message(b"hello")), echo(3))
    assert await peer.reset(1) is ErrorCode.PROTOCOL_ERROR
    assert await peer.answer(3) == b"hello"


async def test_a_content_length_that_is_right_is_taken(site: Site) -> None:
    peer = await connect(site)
    peer.send(head(1, ("content-length", "10")))
    peer.send(frame(Kind.DATA, 0, 1, message(b"hello")[:4]))
    peer.send(frame(Kind.DATA, END_STREAM, 1, message(b"hello")[4:]))
    assert await peer.answer(1) == b"hello"


@pytest.mark.parametrize(
    ("content_type", "status"),
    [("application/grpcfoo", "415"), ("application/grpc-web", "415"),
     ("application/grpc", "200"), ("application/grpc+proto", "200"),
     ("application/grpc;v=1", "200")],
)  # fmt: skip
async def test_only_the_content_type_of_grpc_is_grpc(
    site: Site, content_type: str, status: str
) -> None:
    peer = await connect(site)
    peer.send(head(1, ("content-type", content_type)))
    peer.send(frame(Kind.DATA, END_STREAM, 1, message(b"hello")))
    assert (await peer.headers(1))[":status"] == status


async def test_white_space_around_metadata_is_stripped(site: Site) -> None:
    encoder = hpack.Encoder()
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/t.T/Echo")]
    fields += [("content-type", "application/grpc"), ("x-note", " text \t")]
    decoded = HeadDecoder().decode(encoder.encode(fields))
    assert isinstance(decoded, Head)
    assert decoded.metadata == {"x-note": "text"}


async def test_resets_that_we_are_made_to_send_count_as_the_client_s_own(site: Site) -> None:
    peer = await connect(site)
    for number in range(1, 2 * MAX_CANCELS + 3, 2):
        peer.send(head(number, HOLD), frame(Kind.WINDOW_UPDATE, 0, number, bytes(4)))
        if number % 1000 == 1:
            await peer.writer.drain()
    assert await peer.goaway() is ErrorCode.ENHANCE_YOUR_CALM


async def test_a_client_that_closes_its_sending_half_gets_its_answers(site: Site) -> None:
    peer = Peer(*await site.open())
    peer.send(PREFACE, frames.settings({}), head(1, (":path", "/t.T/Stream")), echo(3))
    peer.send(frame(Kind.DATA, END_STREAM, 1, message(b"streamed")))
    peer.writer.write_eof()
    assert await peer.answer(3) == b"hello"
    async with asyncio.timeout(patience()):
        await peer.reader.read()  # and then the connection ends


async def test_a_client_that_leaves_without_a_word_is_noticed(site: Site) -> None:
    peer = await connect(site)
    peer.send(head(1, HOLD), frame(Kind.DATA, END_STREAM, 1, message(b"")))
    await site.holds(1)
    raw: socket.socket = peer.writer.get_extra_info("socket")
    assert raw.fileno() >= 0
    peer.writer.transport.abort()
    await site.seen("cancelled")


def test_trailers_that_change_the_table_make_remembered_heads_invalid() -> None:
    """Call 2's block is remembered; call 3's trailers give its index another meaning."""
    base = [(":method", "POST"), (":scheme", "http"), (":path", "/a/B")]
    base += [("content-type", "application/grpc")]
    plain = hpack.Encoder().encode([(n, v, True) for n, v in base])
    decoder = HeadDecoder()

    def inserted(value: bytes) -> bytes:
        return b"\x40\x03key" + bytes([len(value)]) + value

    first = decoder.decode(plain + inserted(b"good"))
    by_index = plain + b"\xbe"
    second = decoder.decode(by_index)
    decoder.fields(inserted(b"wrong"))
    third = decoder.decode(by_index)

    heads = [each.metadata for each in (first, second, third) if isinstance(each, Head)]
    assert heads == [{"key": "good"}, {"key": "good"}, {"key": "wrong"}]


def test_a_table_that_shrinks_and_grows_in_one_block_forgets_too() -> None:
    base = [(":method", "POST"), (":scheme", "http"), (":path", "/a/B")]
    base += [("content-type", "application/grpc")]
    plain = hpack.Encoder().encode([(n, v, True) for n, v in base])
    decoder = HeadDecoder()
    decoder.fields(b"\x40\x01a\x01" + b"1" + b"\x40\x01b\x01" + b"2")
    by_index = plain + b"\xbf"  # the older of the two
    assert isinstance(decoder.decode(by_index), Head)

    decoder.fields(b"\x3f\x0f" + b"\x3f\xe1\x1f")  # 46 bytes hold one entry; then 4096 again

    with pytest.raises(frames.ConnectionFault):
        decoder.decode(by_index)
