"""One TCP connection: aiohttp's protocol plus what it lacks, a time limit for request heads."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import cast

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong

from trivet.server.http.answers import error_answer
from trivet.server.http.limits import HttpLimits

_log = logging.getLogger(__name__)
_GOODBYE_S = 1.0
_FLUSH_STEP_S = 0.01
_FULL_TEXT = b'{"error":"too many connections are open"}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%b"
) % (len(_FULL_TEXT), _FULL_TEXT)


class Connection(web.RequestHandler):
    """Reads requests one after another and hands each to the door."""

    __slots__ = ("_head_since", "_is_broken", "_is_busy", "_listener")

    def __init__(self, listener: "Listener", limits: HttpLimits) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            listener,
            loop=loop,
            keepalive_timeout=limits.idle_timeout_s,
            lingering_time=limits.lingering_s,
            max_line_size=limits.max_header_line_bytes,
            max_field_size=limits.max_header_line_bytes,
            max_headers=limits.max_headers,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type] # aiohttp's way to say: no access log
        )
        self._listener = listener
        self._is_broken = False
        self._is_busy = False
        self._head_since: float | None = loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._listener.has_room():
            # A cast, because uvloop's transports do not inherit from asyncio's.
            full = cast("asyncio.Transport", transport)
            full.write(_FULL)
            full.close()
            return
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return
        if self._head_since is None and not self._is_busy:
            self._head_since = self._loop.time()
        super().data_received(data)
        # aiohttp would queue an error with a copy of the bytes for each further piece.
        self._is_broken = bool(self._messages) and not isinstance(
            self._messages[-1][0], RawRequestMessage
        )

    @property
    def is_leaving(self) -> bool:
        """Whether an answer should be the last on this connection."""
        return self._listener.is_leaving

    def mark_busy(self) -> None:
        """A head is complete and its request is being handled."""
        self._head_since = None
        self._is_busy = True

    def mark_idle(self) -> None:
        """The request is answered; the next bytes begin a new head."""
        self._is_busy = False

    def close_if_head_is_late(self, oldest: float) -> None:
        """Closes when a head began before `oldest` (loop time) and is still not complete."""
        if self._head_since is not None and self._head_since < oldest:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Answers bytes that are not HTTP. They are common on an open port, so no log entry."""
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("internal error in the HTTP protocol", exc_info=exc)
            text = "internal error; see the server log"
        elif isinstance(exc, LineTooLong):
            text = f"a line of the request head exceeds {self.max_field_size} bytes"
        else:
            text = "malformed HTTP request"
        answer = error_answer(status, text, closes=True)
        answer.request_id = self._listener.make_request_id()
        return answer


class Listener(web.Server):
    """Makes connections and counts them; looks for late heads every second."""

    def __init__(
        self,
        handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        limits: HttpLimits,
        make_request_id: Callable[[], str],
    ) -> None:
        super().__init__(handle, handler_cancellation=True)
        self._limits = limits
        self._open: dict[web.RequestHandler, asyncio.Transport] = {}
        self.is_leaving = False
        """Whether the server is about to stop: clients are asked to close their connections."""
        self.make_request_id = make_request_id

    def __call__(self) -> Connection:
        return Connection(self, self._limits)

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
            assert isinstance(connection, Connection)
            connection.close_if_head_is_late(now - self._limits.head_timeout_s)
