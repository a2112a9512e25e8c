"""The listening side of HTTP: it has connections made, counts them, and ends them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from aiohttp import web

from trivet.server.http.limits import HttpLimits

_GOODBYE_S = 1.0
_FLUSH_STEP_S = 0.01


class Timed(Protocol):
    """What every connection can do."""

    def close_if_head_is_late(self, oldest: float) -> None:
        """Closes when a head began before `oldest` (loop time) and is still not complete."""


class Listener(web.Server):
    """Makes connections and counts them; looks for late heads every second."""

    def __init__(
        self,
        handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        limits: HttpLimits,
        make_request_id: Callable[[], str],
        connect: "Connect",
    ) -> None:
        super().__init__(handle, handler_cancellation=True)
        self._limits = limits
        self._open: dict[web.RequestHandler, asyncio.Transport] = {}
        self.is_leaving = False
        """Whether the server is about to stop: clients are asked to close their connections."""
        self.make_request_id = make_request_id
        self._connect = connect

    def __call__(self) -> web.RequestHandler:
        return self._connect(self)

    def has_room(self) -> bool:
        """Whether one more connection may be opened."""
        return len(self._open) < self._limits.max_connections

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        self._open[handler] = transport
        super().connection_made(handler, transport)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        self._open.pop(handler, None)
        super().connection_lost(handler, exc)

    async def flush(self, until_s: float) -> None:
        """Waits until clients have taken what closing connections still hold, to `until_s` in loop
        time at the latest. Over TLS not all of that is told: clients get a moment more."""
        loop = asyncio.get_running_loop()
        goodbye_s = loop.time() + _GOODBYE_S
        while self._open and loop.time() < until_s:
            held = any(transport.get_write_buffer_size() for transport in self._open.values())
            if not held and loop.time() >= goodbye_s:
                return
            await asyncio.sleep(_FLUSH_STEP_S)

    def abort(self) -> None:
        """Ends the connections that are still open without waiting for their clients, who over TLS
        would be given half a minute to say good-bye."""
        for transport in self._open.values():
            transport.abort()

    def close_late_heads(self, now: float) -> None:
        """Closes the connections whose request head takes too long. `now` is in loop time."""
        for connection in self.connections:
            # aiohttp's type for what `connect` has made.
            timed = cast("Timed", connection)
            timed.close_if_head_is_late(now - self._limits.head_timeout_s)


Connect = Callable[[Listener], web.RequestHandler]
"""Makes a connection of this listener's, which is `Timed`."""
