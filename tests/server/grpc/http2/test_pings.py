"""Keepalive as Triton's flags set it: which pings are sent, and which are too many."""

import asyncio

import pytest
from grpc_peer import connect, echo, head
from grpc_site import Start

from trivet.server.grpc.http2.frames import ACK, ConnectionFault, ErrorCode, Kind, frame
from trivet.server.grpc.http2.options import Http2Options
from trivet.server.grpc.http2.pings import Pings


def pings(**options: float) -> Pings:
    return Pings(Http2Options(1, **options))  # type: ignore[arg-type]  # each of its type


def test_idle_connections_are_pinged_only_where_that_is_permitted() -> None:
    assert pings().may_send(0, has_calls=False)
    assert not pings(pings_idle=False).may_send(0, has_calls=False)
    assert pings(pings_idle=False).may_send(0, has_calls=True)


def test_pings_end_until_a_call_moves_on() -> None:
    limited = pings(max_pings_without_data=2)
    assert [limited.may_send(0, has_calls=True) for _ in range(4)] == [True, True, False, False]
    assert [limited.may_send(1, has_calls=True) for _ in range(3)] == [True, True, False]


def test_pings_that_come_too_soon_are_strikes() -> None:
    strict = pings(min_ping_interval_s=10, max_ping_strikes=2)
    for now_s in (0, 10, 20, 21, 22):
        strict.came(now_s, 0)
    with pytest.raises(ConnectionFault, match="too_many_pings"):
        strict.came(23, 0)


def test_calls_that_move_on_pardon() -> None:
    strict = pings(min_ping_interval_s=10, max_ping_strikes=1)
    for number in range(20):
        strict.came(number, number // 2)


def test_without_an_interval_or_a_limit_nothing_is_a_strike() -> None:
    for lenient in (pings(), pings(min_ping_interval_s=10, max_ping_strikes=0)):
        for number in range(100):
            lenient.came(number / 1000, 0)


async def test_a_client_that_pings_too_often_is_told_so_and_closed(start: Start) -> None:
    site = await start(min_ping_interval_s=300.0, max_ping_strikes=2)
    peer = await connect(site)
    for _ in range(3):
        peer.send(frame(Kind.PING, 0, 0, b"12345678"), echo(peer.next_id()))
    for _ in range(3):
        assert await peer.until(Kind.PING) == (ACK, b"12345678")
    for _ in range(4):
        peer.send(frame(Kind.PING, 0, 0, b"12345678"))
    _, payload = await peer.until(Kind.GOAWAY)
    assert payload[4:8] == ErrorCode.ENHANCE_YOUR_CALM.to_bytes(4, "big")
    assert payload[8:] == b"too_many_pings"


async def test_no_ping_is_sent_without_calls_unless_permitted(start: Start) -> None:
    site = await start(pings_idle=False, keepalive_s=0.02, keepalive_timeout_s=0.02)
    peer = await connect(site)
    await asyncio.sleep(0.2)
    # Neither pinged nor given up for not answering.
    peer.send(head(1, (":path", "/t.T/Stream")))
    await peer.until(Kind.PING)
