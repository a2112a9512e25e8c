"""Compressed messages: large ones are unpacked beside the event loop, and keep their order."""

import gzip
import threading
from collections.abc import AsyncIterator, Iterator

import grpc
import grpc.aio
import pytest
from grpc_peer import Peer, connect, echo, head, message
from grpc_site import MIB, Site
from patience import patience

from trivet.server.grpc.http2.calls import STREAM_WINDOW
from trivet.server.grpc.http2.frames import END_STREAM, ErrorCode, Kind, frame
from trivet.server.grpc.http2.messages import Packed
from trivet.server.protocol.inflate import Plain

ZIPPED = ("grpc-encoding", "gzip")
STREAM = (":path", "/t.T/Stream")


def zipped(plain: bytes) -> bytes:
    return message(gzip.compress(plain), 1)


@pytest.fixture
async def peer(site: Site) -> Peer:
    return await connect(site)


async def test_a_bomb_is_refused_and_others_are_answered_while_it_is_unpacked(peer: Peer) -> None:
    """Both come in one read, and the bomb comes first."""
    bomb = head(1, ZIPPED) + frame(Kind.DATA, END_STREAM, 1, zipped(bytes(33 * MIB)))
    peer.send(bomb + echo(3))
    assert await peer.answer(3) == b"hello"
    assert await peer.status(1) == "8"
    peer.send(echo(5))
    assert await peer.answer(5) == b"hello"


async def test_half_a_large_message_ends_its_call(peer: Peer) -> None:
    cut = gzip.compress(bytes(8 * MIB))[:-10]
    peer.send(head(1, ZIPPED) + frame(Kind.DATA, END_STREAM, 1, message(cut, 1)))
    assert await peer.status(1) == "13"


async def test_a_call_that_is_cancelled_while_it_is_unpacked_is_over(peer: Peer) -> None:
    bomb = head(1, ZIPPED) + frame(Kind.DATA, END_STREAM, 1, zipped(bytes(33 * MIB)))
    peer.send(bomb + frame(Kind.RST_STREAM, 0, 1, bytes(4)) + echo(3))
    assert await peer.answer(3) == b"hello"


async def test_messages_behind_one_that_is_unpacked_wait_for_it(peer: Peer, site: Site) -> None:
    sizes = [4 * MIB, 10, 3 * MIB, 0, 300_000]
    sent = b"".join(zipped(b"%d" % n + bytes(size)) for n, size in enumerate(sizes))
    peer.send(head(1, STREAM, ZIPPED))
    for start in range(0, len(sent), 16_000):
        peer.send(frame(Kind.DATA, 0, 1, sent[start : start + 16_000]))
    peer.send(frame(Kind.DATA, END_STREAM, 1))
    peer.send(frame(Kind.WINDOW_UPDATE, 0, 0, (64 * MIB).to_bytes(4, "big")))
    peer.send(frame(Kind.WINDOW_UPDATE, 0, 1, (64 * MIB).to_bytes(4, "big")))
    received = b""
    expected = sum(size + 6 for size in sizes)
    while len(received) < expected:
        received += (await peer.until(Kind.DATA, 1))[1]
    found = []
    while received:
        size = int.from_bytes(received[1:5], "big")
        found.append((received[5:6], size))
        received = received[5 + size :]
    assert found == [(b"%d" % n, size + 1) for n, size in enumerate(sizes)]
    await peer.headers(1)
    assert "half-close" in site.log


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until this is set, no message is unpacked."""
    event = threading.Event()
    finish = Packed.finish

    def held(message: Packed) -> Plain:
        assert event.wait(patience())
        return finish(message)

    monkeypatch.setattr(Packed, "finish", held)
    yield event
    event.set()


async def test_nothing_but_the_window_may_wait(peer: Peer, hold: threading.Event) -> None:
    peer.send(head(1, STREAM, ZIPPED) + frame(Kind.DATA, 0, 1, zipped(bytes(MIB))))
    for _ in range(STREAM_WINDOW // MIB):
        peer.send(frame(Kind.DATA, 0, 1, bytes(MIB)))
    assert await peer.reset(1) is ErrorCode.FLOW_CONTROL_ERROR
    hold.set()
    peer.send(echo(3))
    assert await peer.answer(3) == b"hello"


async def test_many_empty_messages_that_waited_hold_up_nobody(
    peer: Peer, site: Site, hold: threading.Event
) -> None:
    peer.send(head(1, STREAM, ZIPPED) + frame(Kind.DATA, 0, 1, zipped(bytes(MIB))))
    peer.send(frame(Kind.DATA, 0, 1, bytes(MIB // 5 * 5)))
    peer.send(frame(Kind.DATA, END_STREAM, 1) + echo(3))
    assert await peer.answer(3) == b"hello"
    assert "half-close" not in site.log
    hold.set()
    peer.send(echo(5))
    assert await peer.answer(5) == b"hello"
    assert "half-close" not in site.log
    await site.seen("half-close")


@pytest.fixture
async def channel(site: Site) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    address = f"127.0.0.1:{site.port}"
    async with grpc.aio.insecure_channel(
        address, options=options, compression=grpc.Compression.Gzip
    ) as channel:
        yield channel


async def test_grpcio_s_compressed_stream_comes_back_in_order(channel: grpc.aio.Channel) -> None:
    messages = [bytes([n]) * (2 * MIB if n % 3 else 5) for n in range(12)]
    call = channel.stream_stream("/t.T/Stream")(iter(messages))
    assert [each async for each in call] == messages
