"""What the kernel does for our connections: it notices peers that are gone without a word. And the
loop that they are served in."""

import asyncio
import socket
from collections.abc import Callable

KEEPALIVE_IDLE_S = 60
KEEPALIVE_PERIOD_S = 10
KEEPALIVE_PROBES = 6
"""A peer that answers none of so many probes is gone."""
UNACKNOWLEDGED_S = 120
"""A peer that has not acknowledged what was sent to it for so long is gone."""


def notice_dead_peers(server: asyncio.Server) -> None:
    """Connections to a machine that was switched off or cut off end after two minutes, idle or not.
    Set on the listening sockets, from which accepted ones inherit it."""
    for listening in server.sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
            ("TCP_KEEPINTVL", KEEPALIVE_PERIOD_S),
            ("TCP_KEEPCNT", KEEPALIVE_PROBES),
            ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_S * 1000),
        ):
            option = getattr(socket, name, None)  # not every system has them all
            if option is not None:
                listening.setsockopt(socket.IPPROTO_TCP, option, value)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
