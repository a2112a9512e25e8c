"""What a peer may not do costs its stream or its connection, and nobody else's."""

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest
from grpc_peer import Peer, block, connect, echo, head, message
from grpc_site import MIB, Site, Start
from heard import hear
from patience import fires_after, patience

from trivet.server.grpc.http2 import frames
from trivet.server.grpc.http2.flood import MAX_CANCELS, MAX_IDLE_FRAMES
from trivet.server.grpc.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PADDED,
    PREFACE,
    PRIORITY,
    ErrorCode,
    Kind,
    Setting,
    frame,
)

MAX = (2**31 - 1).to_bytes(4, "big")


@pytest.fixture
async def peer(site: Site) -> AsyncIterator[Peer]:
    """A connected one; afterwards another client must be served as ever."""
    peer = await connect(site)
    yield peer
    other = await connect(site)
    other.send(echo(1, b"unharmed"))
    assert await other.answer(1) == b"unharmed"


async def test_a_call_in_raw_frames(peer: Peer) -> None:
    peer.send(echo(1))
    assert await peer.answer(1) == b"hello"


async def test_bytes_may_come_one_at_a_time(site: Site) -> None:
    peer = Peer(*await site.open())
    for byte in PREFACE + frames.settings({}) + echo(1) + echo(3, b"again"):
        peer.send(bytes([byte]))
        await asyncio.sleep(0)
    assert await peer.answer(1) == b"hello"
    assert await peer.answer(3) == b"again"


async def test_padding_priority_and_continuation_are_understood(peer: Peer) -> None:
    whole = block()
    flags = PADDED | PRIORITY
    peer.send(frame(Kind.HEADERS, flags, 1, b"\x03" + bytes(5) + whole[:4] + bytes(3)))
    peer.send(frame(Kind.CONTINUATION, 0, 1, whole[4:9]))
    peer.send(frame(Kind.CONTINUATION, END_HEADERS, 1, whole[9:]))
    body = message(b"padded")
    peer.send(frame(Kind.DATA, PADDED, 1, b"\x02" + body[:3] + b"\0\0"))
    peer.send(frame(Kind.DATA, PADDED | END_STREAM, 1, b"\x00" + body[3:]))
    assert await peer.answer(1) == b"padded"


async def test_request_trailers_end_the_request(peer: Peer) -> None:
    peer.send(head(1), frame(Kind.DATA, 0, 1, message(b"x")))
    peer.send(frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, b"\0\1a\1b"))
    assert await peer.answer(1) == b"x"


async def test_unknown_frames_and_settings_are_ignored(peer: Peer) -> None:
    peer.send(frame(99, 0, 0, b"what"), frames.settings({77: 1}), echo(1))  # type: ignore[arg-type,dict-item]
    assert await peer.answer(1) == b"hello"


async def test_pings_are_answered(peer: Peer) -> None:
    peer.send(frame(Kind.PING, 0, 0, b"12345678"))
    assert await peer.until(Kind.PING) == (ACK, b"12345678")


IDLE = frame(Kind.WINDOW_UPDATE, 0, 0, (1).to_bytes(4, "big"))
FAULTS = {
    "DATA on stream 0": (frame(Kind.DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "DATA on an idle stream": (frame(Kind.DATA, 0, 7, b"x"), ErrorCode.PROTOCOL_ERROR),
    "an even stream": (head(2), ErrorCode.PROTOCOL_ERROR),
    "a stream again": (echo(5) + echo(3), ErrorCode.STREAM_CLOSED),
    "broken HPACK": (frame(Kind.HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
                     ErrorCode.COMPRESSION_ERROR),
    "an entry that is not there": (frame(Kind.HEADERS, END_HEADERS, 1, b"\xfe"),
                                   ErrorCode.COMPRESSION_ERROR),
    "headers broken off": (head(1, flags=0) + frame(Kind.PING, 0, 0, bytes(8)),
                           ErrorCode.PROTOCOL_ERROR),
    "headers broken off by DATA": (head(1, flags=0) + frame(Kind.DATA, 0, 1, b"x"),
                                   ErrorCode.PROTOCOL_ERROR),
    "CONTINUATION of another": (head(1, flags=0) + frame(Kind.CONTINUATION, 0, 3, b""),
                                ErrorCode.PROTOCOL_ERROR),
    "CONTINUATION of nothing": (frame(Kind.CONTINUATION, END_HEADERS, 1, b""),
                                ErrorCode.PROTOCOL_ERROR),
    "CONTINUATION flood": (head(1, flags=0) + frame(Kind.CONTINUATION, 0, 1, b"") * 2000,
                           ErrorCode.ENHANCE_YOUR_CALM),
    "too many headers": (head(1, flags=0) + frame(Kind.CONTINUATION, 0, 1, bytes(16_000)) * 5,
                         ErrorCode.ENHANCE_YOUR_CALM),
    "an HPACK bomb": (frame(Kind.HEADERS, END_HEADERS, 1,
                            b"\x40\x01a\x7f\x80\x18" + b"x" * 3199 + b"\xbe" * 4000),
                      ErrorCode.ENHANCE_YOUR_CALM),
    "padding too long": (frame(Kind.HEADERS, END_HEADERS | PADDED, 1, b"\xff" + block()),
                         ErrorCode.PROTOCOL_ERROR),
    "HEADERS cut off": (frame(Kind.HEADERS, END_HEADERS | PRIORITY, 1, b"abc"),
                        ErrorCode.FRAME_SIZE_ERROR),
    "a huge frame": (frames.frame_head(2**24 - 1, 0, 0, 1), ErrorCode.FRAME_SIZE_ERROR),
    "huge headers": (frames.frame_head(100_000, 1, 0, 1), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS of 5 bytes": (frame(Kind.SETTINGS, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS ACK with content": (frame(Kind.SETTINGS, ACK, 0, bytes(6)),
                                  ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (frame(Kind.SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "a window setting too large": (frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31}),
                                   ErrorCode.FLOW_CONTROL_ERROR),
    "a frame size too small": (frames.settings({Setting.MAX_FRAME_SIZE: 100}),
                               ErrorCode.PROTOCOL_ERROR),
    "push of 2": (frames.settings({Setting.ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR),
    "PING of 7 bytes": (frame(Kind.PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "PING on a stream": (frame(Kind.PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "PING flood": (frame(Kind.PING, 0, 0, bytes(8)) * (MAX_IDLE_FRAMES + 1),
                   ErrorCode.ENHANCE_YOUR_CALM),
    "SETTINGS flood": (frames.settings({}) * (MAX_IDLE_FRAMES + 1), ErrorCode.ENHANCE_YOUR_CALM),
    "WINDOW_UPDATE flood": (IDLE * (MAX_IDLE_FRAMES + 1), ErrorCode.ENHANCE_YOUR_CALM),
    "empty DATA flood": (head(1) + frame(Kind.DATA, 0, 1) * (MAX_IDLE_FRAMES + 1),
                         ErrorCode.ENHANCE_YOUR_CALM),
    "WINDOW_UPDATE of 0": (frame(Kind.WINDOW_UPDATE, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE of 3 bytes": (frame(Kind.WINDOW_UPDATE, 0, 0, bytes(3)),
                                 ErrorCode.FRAME_SIZE_ERROR),
    "a window too large": (frame(Kind.WINDOW_UPDATE, 0, 0, MAX), ErrorCode.FLOW_CONTROL_ERROR),
    "WINDOW_UPDATE of an idle stream": (frame(Kind.WINDOW_UPDATE, 0, 9, MAX),
                                        ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM of an idle stream": (frames.rst_stream(9, ErrorCode.CANCEL),
                                     ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM of 3 bytes": (head(1) + frame(Kind.RST_STREAM, 0, 1, bytes(3)),
                              ErrorCode.FRAME_SIZE_ERROR),
    "PRIORITY of 4 bytes": (frame(Kind.PRIORITY, 0, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
    "PUSH_PROMISE": (frame(Kind.PUSH_PROMISE, 0, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "GOAWAY on a stream": (frame(Kind.GOAWAY, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_broken_protocol_ends_the_connection(peer: Peer, fault: str) -> None:
    data, code = FAULTS[fault]
    peer.send(data)
    assert await peer.goaway() is code


MALFORMED = {
    "an upper-case name": frame(Kind.HEADERS, END_HEADERS, 1, block() + b"\0\1A\1b"),
    "a NUL in a value": frame(Kind.HEADERS, END_HEADERS, 1, block() + b"\0\1a\1\0"),
    "a line break in a value": frame(Kind.HEADERS, END_HEADERS, 1, block() + b"\0\1a\3x\ny"),
    "a connection header": head(1, ("connection", "close")),
    "no path": head(1, (":path", "")),
    "no method": head(1, (":method", "")),
    "an unknown pseudo-header": frame(Kind.HEADERS, END_HEADERS, 1, b"\0\4:abc\1b" + block()),
    "a pseudo-header too late": frame(Kind.HEADERS, END_HEADERS, 1, block() + b"\x87"),
    "a path twice": frame(Kind.HEADERS, END_HEADERS, 1, b"\x84" + block()),
}


@pytest.mark.parametrize("fault", MALFORMED)
async def test_a_malformed_head_costs_its_stream(peer: Peer, fault: str) -> None:
    peer.send(MALFORMED[fault], echo(3))
    assert await peer.reset(1) is ErrorCode.PROTOCOL_ERROR
    assert await peer.answer(3) == b"hello"


@pytest.mark.parametrize(
    ("change", "status"),
    [((":method", "GET"), "405"), (("content-type", "text/html"), "415"),
     (("content-type", ""), "415")],
)  # fmt: skip
async def test_what_is_not_grpc_gets_an_http_status(
    peer: Peer, change: tuple[str, str], status: str
) -> None:
    peer.send(head(1, change, flags=END_HEADERS | END_STREAM))
    assert (await peer.headers(1))[":status"] == status


CALLS = {
    "no message": (head(1, flags=END_HEADERS | END_STREAM), "12"),
    "two messages": (head(1) + frame(Kind.DATA, 1, 1, message(b"a") * 2), "12"),
    "half a prefix": (head(1) + frame(Kind.DATA, 1, 1, b"\0\0"), "13"),
    "half a message": (head(1) + frame(Kind.DATA, 1, 1, message(b"abcdef")[:8]), "13"),
    "an unknown flag": (head(1) + frame(Kind.DATA, 1, 1, message(b"a", 7)), "13"),
    "compressed by nothing": (head(1) + frame(Kind.DATA, 1, 1, message(b"a", 1)), "13"),
    "not gzip": (head(1, ("grpc-encoding", "gzip")) + frame(Kind.DATA, 1, 1, message(b"a", 1)),
                 "13"),
    "half gzip": (head(1, ("grpc-encoding", "gzip"))
                  + frame(Kind.DATA, 1, 1, message(gzip.compress(b"a" * 99)[:20], 1)), "13"),
    "an unknown encoding": (head(1, ("grpc-encoding", "br")), "12"),
    "a message too large": (head(1) + frame(Kind.DATA, 0, 1, b"\0\xff\xff\xff\xff"), "8"),
    "a broken time-out": (head(1, ("grpc-timeout", "soon")), "13"),
    "no time": (head(1, ("grpc-timeout", "0n")), "4"),
    "an unknown service": (head(1, (":path", "/x/y")), "12"),
}  # fmt: skip


@pytest.mark.parametrize("fault", CALLS)
async def test_a_bad_call_fails_by_itself(peer: Peer, fault: str) -> None:
    data, status = CALLS[fault]
    peer.send(data, echo(3))
    assert await peer.status(1) == status
    assert await peer.answer(3) == b"hello"


async def test_a_call_that_fails_early_tells_the_client_to_stop_sending(peer: Peer) -> None:
    peer.send(head(1, (":path", "/x/y")))
    assert await peer.status(1) == "12"
    assert await peer.reset(1) is ErrorCode.NO_ERROR


async def test_data_after_the_end_costs_its_stream(peer: Peer, site: Site) -> None:
    hold = head(1, (":path", "/t.T/Hold")) + frame(Kind.DATA, END_STREAM, 1, message(b""))
    peer.send(hold, frame(Kind.DATA, 0, 1, b"more"))
    assert await peer.reset(1) is ErrorCode.STREAM_CLOSED
    assert site.log == ["cancelled"]


async def test_a_stream_s_window_update_of_0_costs_the_stream(peer: Peer) -> None:
    peer.send(head(1), frame(Kind.WINDOW_UPDATE, 0, 1, bytes(4)), echo(3))
    assert await peer.reset(1) is ErrorCode.PROTOCOL_ERROR
    assert await peer.answer(3) == b"hello"


async def test_a_stream_s_window_too_large_costs_the_stream(peer: Peer) -> None:
    peer.send(head(1), frame(Kind.WINDOW_UPDATE, 0, 1, MAX), echo(3))
    assert await peer.reset(1) is ErrorCode.FLOW_CONTROL_ERROR
    assert await peer.answer(3) == b"hello"


async def test_windows_of_the_client_are_respected(peer: Peer) -> None:
    peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 4}), echo(1, b"0123456789"))
    await peer.headers(1)
    assert (await peer.until(Kind.DATA))[1] == message(b"0123456789")[:4]
    peer.send(frame(Kind.WINDOW_UPDATE, 0, 1, (6).to_bytes(4, "big")))
    assert (await peer.until(Kind.DATA))[1] == message(b"0123456789")[4:10]
    peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 100}))
    assert (await peer.until(Kind.DATA))[1] == message(b"0123456789")[10:]
    assert (await peer.headers(1))["grpc-status"] == "0"


async def test_a_call_cancelled_in_the_queue_frees_it(peer: Peer) -> None:
    peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}), echo(1))
    await peer.headers(1)
    peer.send(frames.rst_stream(1, ErrorCode.CANCEL))
    peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 1000}), echo(3, b"next"))
    assert await peer.answer(3) == b"next"


@pytest.mark.rows("G11")
async def test_calls_over_the_cap_are_refused(start: Start) -> None:
    site = await start(max_concurrent_streams=3)
    peer = await connect(site)
    peer.send(*(head(number, (":path", "/t.T/Hold")) for number in (1, 3, 5, 7)))
    assert await peer.reset(7) is ErrorCode.REFUSED_STREAM
    peer.send(frames.rst_stream(1, ErrorCode.CANCEL), echo(9))
    assert await peer.answer(9) == b"hello"


async def test_rapid_resets_are_survived_then_refused(peer: Peer, site: Site) -> None:
    for number in range(1, 2 * MAX_CANCELS + 3, 2):
        peer.send(
            head(number, (":path", "/t.T/Stream")), frames.rst_stream(number, ErrorCode.CANCEL)
        )
        if number % 1000 == 1:
            await peer.writer.drain()
    assert await peer.goaway() is ErrorCode.ENHANCE_YOUR_CALM
    assert site.log.count("cancelled") == MAX_CANCELS + 1


async def test_a_flood_of_calls_leaves_others_their_turn(peer: Peer, site: Site) -> None:
    other = await connect(site)
    peer.send(*(echo(number) for number in range(1, 4001, 2)))
    other.send(echo(1, b"in between"))
    assert await other.answer(1) == b"in between"
    for number in range(1, 4001, 2):
        assert await peer.answer(number) == b"hello"


async def test_http_1_is_told_where_to_go(site: Site) -> None:
    peer = Peer(*await site.open())
    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(patience()):
        answer = await peer.reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"gRPC" in answer


@pytest.mark.parametrize("greeting", [b"", PREFACE[:10], PREFACE])
async def test_a_client_that_does_not_greet_is_let_go(start: Start, greeting: bytes) -> None:
    site = await start(handshake_timeout_s=0.1)
    peer = Peer(*await site.open())
    peer.send(greeting)
    async with asyncio.timeout(patience()):
        try:
            while await peer.reader.read(1000):
                pass
        except ConnectionResetError:
            pass


@pytest.mark.rows("G14")
async def test_a_client_that_answers_no_ping_is_let_go(start: Start) -> None:
    site = await start(keepalive_s=0.1, keepalive_timeout_s=0.1)
    peer = await connect(site)
    peer.send(head(1, (":path", "/t.T/Stream")))
    await peer.until(Kind.PING)
    await site.seen("cancelled")
    while await peer.reader.read(1024):
        pass
    hear(is_closed=True)


@pytest.mark.rows("G10")
async def test_a_client_that_answers_pings_stays(start: Start) -> None:
    site = await start(keepalive_s=0.05, keepalive_timeout_s=patience(0.5))
    peer = await connect(site)
    for _ in range(3):  # longer than it would be let be: each comes after a time-out
        _, payload = await peer.until(Kind.PING)
        peer.send(frame(Kind.PING, ACK, 0, payload))
    peer.send(echo(1))
    assert await peer.answer(1) == b"hello"


async def test_responses_are_compressed_for_those_who_can_read_it(start: Start) -> None:
    site = await start(gzip_level=6)
    peer = await connect(site)
    peer.send(head(1, ("grpc-accept-encoding", "identity, gzip")))
    peer.send(frame(Kind.DATA, END_STREAM, 1, message(b"a" * 9999)))
    assert (await peer.headers(1))["grpc-encoding"] == "gzip"
    _, payload = await peer.until(Kind.DATA, 1)
    assert payload[0] == 1
    assert gzip.decompress(payload[5:]) == b"a" * 9999
    peer.send(echo(3, b"plain"))
    assert await peer.answer(3) == b"plain"


async def test_a_draining_server_refuses_new_calls_after_the_ping(site: Site) -> None:
    peer = await connect(site)
    peer.send(head(1, (":path", "/t.T/Stream")))
    await site.holds(1)
    draining = asyncio.ensure_future(site.transport.drain(patience()))
    await peer.until(Kind.GOAWAY)
    _, ping = await peer.until(Kind.PING)
    peer.send(echo(3, b"was on its way"), frame(Kind.PING, ACK, 0, ping), echo(5))
    assert await peer.answer(3) == b"was on its way"
    assert await peer.reset(5) is ErrorCode.REFUSED_STREAM
    peer.send(frame(Kind.DATA, END_STREAM, 1))
    await asyncio.wait_for(draining, patience())


async def test_a_connection_too_many_is_refused_until_another_goes(start: Start) -> None:
    site = await start(max_connections=2)
    first, second = await connect(site), await connect(site)
    second.send(echo(1))
    assert await second.answer(1) == b"hello"
    assert await (await connect(site)).goaway() is ErrorCode.ENHANCE_YOUR_CALM
    first.writer.close()
    async with asyncio.timeout(patience()):
        while len(site.transport._connections) > 1:
            await asyncio.sleep(0.01)
    third = await connect(site)
    third.send(echo(1, b"room"))
    assert await third.answer(1) == b"room"


@pytest.mark.rows("G10")
async def test_keepalive_for_hours_is_no_flood(start: Start) -> None:
    site = await start(keepalive_s=0.002, keepalive_timeout_s=patience())
    peer = await connect(site)
    for _ in range(3):
        _, payload = await peer.until(Kind.PING)
        for _ in range(MAX_IDLE_FRAMES // 2 - 10):
            peer.send(frame(Kind.PING, 0, 0, b"12345678"))
        peer.send(frame(Kind.PING, ACK, 0, payload), echo(peer.next_id()))
    assert await peer.answer(1) == b"hello"


async def test_a_silent_client_does_not_hold_up_the_end(site: Site) -> None:
    await connect(site)
    await (await connect(site)).until(Kind.SETTINGS)
    await asyncio.wait_for(site.transport.drain(10 * patience()), patience())


async def send_refused_calls(peer: Peer, limit_bytes: int) -> int:
    """Sends calls of an unknown method until they are not taken for a second; bytes sent."""
    refused = block((":path", "/x/y"))
    sent = 0
    while sent < limit_bytes:
        calls = [frame(Kind.HEADERS, 5, peer.next_id(), refused) for _ in range(5000)]
        peer.send(*calls)
        sent += sum(map(len, calls))
        try:
            async with asyncio.timeout(fires_after(1)):
                await peer.writer.drain()
        except TimeoutError:
            return sent
    return sent


async def test_a_client_that_does_not_read_is_not_read_either(site: Site) -> None:
    peer = await connect(site)
    await peer.until(Kind.SETTINGS)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    assert await send_refused_calls(peer, 64 * MIB) < 64 * MIB
    (connection,) = site.transport._connections
    assert connection._transport.get_write_buffer_size() < 4 * MIB
    other = await connect(site)
    other.send(echo(1, b"served"))
    assert await other.answer(1) == b"served"


async def test_what_a_lost_connection_held_is_freed_at_once(site: Site) -> None:
    peer = await connect(site)
    peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    body = message(bytes(8 * MIB))
    peer.send(head(1), frame(Kind.DATA, 0, 1, body[:16_384]))
    rest = memoryview(body)[16_384:]
    for place in range(0, len(rest), 16_384):
        part = bytes(rest[place : place + 16_384])
        last = END_STREAM if place + 16_384 >= len(rest) else 0
        peer.send(frame(Kind.DATA, last, 1, part))
        await peer.writer.drain()
    await peer.headers(1)
    (connection,) = site.transport._connections
    queues = [call.queue for call in connection._calls._calls.values()]
    assert sum(len(piece) for piece in queues[0]) == len(body)
    peer.writer.close()
    async with asyncio.timeout(patience()):
        while site.transport._connections:
            await asyncio.sleep(0.01)
    assert not any(queues)
    assert connection._outbox._pieces == []
