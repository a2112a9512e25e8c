"""One TCP connection: aiohttp's protocol plus what it lacks: a time limit for request heads, and
requests that are answered without a task."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import cast

from aiohttp import StreamReader, web
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import LineTooLong

from trivet.server.http.answers import error_answer
from trivet.server.http.body import too_large
from trivet.server.http.chunks import ChunkSizes
from trivet.server.http.limits import HttpLimits

_log = logging.getLogger(__name__)
HALF_CLOSED_S = 1.0
"""How long a request may still take whose client has closed its half of the connection."""
_READ_BUFFER_BYTES = 64 * 1024
_HEAD_END = b"\r\n\r\n"
_GOODBYE_S = 1.0
_FLUSH_STEP_S = 0.01
_FULL_TEXT = b'{"error":"too many connections are open"}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%b"
) % (len(_FULL_TEXT), _FULL_TEXT)


Begin = Callable[[RawRequestMessage, StreamReader, "Connection"], bool]
"""Answers a request by callbacks, between `hold` and `release`; False: it needs a task."""


class Connection(web.RequestHandler):
    """Reads requests one after another and hands each to the door."""

    __slots__ = (
        "_body",
        "_chunks",
        "_closes",
        "_give_up",
        "_grace",
        "_head",
        "_head_since",
        "_held_waiter",
        "_is_broken",
        "_is_busy",
        "_is_half_closed",
        "_is_unread",
        "_limits",
        "_listener",
    )

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
        self._limits = limits
        self._head = b""
        """What has come of a head that is not whole."""
        self._body: StreamReader | None = None
        """Of the request that came last."""
        self._chunks: ChunkSizes | None = None
        """Of that body, if it comes in chunks and is not whole."""
        self._is_half_closed = False
        """Whether the client sends no more, and something that it asked for is under way."""
        self._grace: asyncio.TimerHandle | None = None
        self._is_broken = False
        self._is_busy = False
        self._held_waiter: asyncio.Future[None] | None = None
        """What aiohttp's loop waits for, while a request is answered without it."""
        self._give_up: Callable[[], None] | None = None
        self._closes = False
        self._is_unread = False
        """Whether an answer is to be taken by the client before the connection goes on."""
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
        # Its loop is woken below, if this is nothing that can be answered here.
        waiter, self._waiter = self._waiter, None
        messages = self._messages
        num_before = len(messages)
        super().data_received(data)
        if len(messages) > num_before:
            self._came(data, num_before)
        elif self._chunks is not None:
            self._check_chunks(data)
        elif self._body is None or self._body.is_eof():
            self._head += data
        self._waiter = waiter
        if messages:
            if waiter is not None and not waiter.done():
                if len(messages) == 1 and self._begin():
                    return
                waiter.set_result(None)
            # aiohttp would queue an error with a copy of the bytes for each further piece.
            self._is_broken = not isinstance(messages[-1][0], RawRequestMessage)
        if self._head_since is None and not self._is_busy:
            self._head_since = self._loop.time()

    def _came(self, data: bytes, num_before: int) -> None:
        """One request or several, or an error, were found in these bytes and the head before."""
        head, self._head = self._head, b""
        if not isinstance(self._messages[-1][0], RawRequestMessage):
            self._recover(head + data, num_before)
            return
        message, self._body = self._messages[-1]
        assert isinstance(message, RawRequestMessage)
        self._chunks = None
        if message.chunked and not self._body.is_eof() and len(self._messages) == num_before + 1:
            self._chunks = ChunkSizes()
            self._check_chunks((head + data).partition(_HEAD_END)[2])

    def _recover(self, data: bytes, num_before: int) -> None:
        """aiohttp's parser forgets the good requests before what is none in the same bytes: a new
        one gets them piece by piece."""
        if len(self._messages) > num_before + 1 or data.count(_HEAD_END) < 2:
            return
        error = self._messages.pop()
        self._parser = new_parser(self, self._loop, self._limits)
        for piece in data.split(_HEAD_END):
            super().data_received(piece + _HEAD_END)
            if len(self._messages) > num_before and not isinstance(
                self._messages[-1][0], RawRequestMessage
            ):
                return
        self._messages.append(error)

    def _check_chunks(self, data: bytes) -> None:
        """Ends a body with an error as soon as a chunk says that it is larger than bodies may be:
        nobody should wait for its bytes."""
        assert self._chunks is not None
        assert self._body is not None
        if self._body.is_eof():
            self._chunks = None
            return
        most = self._limits.max_body_bytes
        for size in self._chunks.feed(data):
            if size > most:
                self._is_broken = True
                self._chunks = None
                self._body.set_exception(too_large(f"at least {size}", most))
                self._body.feed_eof()
                return

    # -- half-closed connections ---------------------------------------------------------------

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's contract, not aiohttp's
        """The client sends no more: it may have left, or wait for its answer with one half closed.

        Over HTTP both look alike until something is written. So what has come whole is answered if
        that is soon, and cancelled if it is not. TLS knows no such half.
        """
        if self._is_half_closed:
            return True
        transport = self.transport
        is_whole = self._body is not None and self._body.is_eof() and not self._is_broken
        # aiohttp's loop waits for a request; a held one's waiter is put aside.
        is_idle = self._waiter is not None and not self._waiter.done() and not self._messages
        if transport is None or transport.is_closing() or is_idle or not is_whole:
            return False
        if transport.get_extra_info("sslcontext") is not None:
            return False
        self._is_half_closed = True
        self._wait_half_closed()
        return True

    def _wait_half_closed(self) -> None:
        written = self._written_bytes()
        self._grace = self._loop.call_later(HALF_CLOSED_S, self._end_half_closed, written)

    def _end_half_closed(self, written_before: int) -> None:
        """Closes, unless a stream has been written to meanwhile: a client that is gone would have
        answered that with a reset."""
        if self._written_bytes() > written_before:
            self._wait_half_closed()
        elif self.transport is not None:
            self.transport.close()

    def _written_bytes(self) -> int:
        request = self._current_request
        return 0 if request is None else request.writer.output_size

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's
        # Every read of a body calls this, and it parses nothing once more.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    # -- requests without a task ---------------------------------------------------------------

    def _begin(self) -> bool:
        message, payload = self._messages[0]
        return (
            isinstance(message, RawRequestMessage)
            and not self._buffer_paused
            and not self._upgraded
            and self._listener.begin(message, payload, self)
        )

    def hold(self, give_up: Callable[[], None]) -> None:
        """The request that has come is answered by callbacks, and `release` follows. `give_up` is
        called if the client goes away."""
        self._messages.popleft()
        assert self._parser is not None
        self._parser.message_consumed()
        self._listener.requests_count += 1
        self._held_waiter, self._waiter = self._waiter, None
        self._give_up = give_up
        self._request_in_progress = True
        self.mark_busy()

    def release(self, *, closes: bool) -> None:
        """It is answered. The next one is taken when the client has taken the answer."""
        self._closes = closes
        self._is_unread = self._paused and self.transport is not None
        if not self._is_unread:
            self._go_on()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_unread:
            self._is_unread = False
            self._go_on()

    def _go_on(self) -> None:
        waiter, self._held_waiter = self._held_waiter, None
        self._give_up = None
        self._request_in_progress = False
        self.mark_idle()
        if self._handler_waiter is not None:
            self._handler_waiter.set_result(None)
        if waiter is None or waiter.done():
            return  # The connection is gone.
        self._waiter = waiter
        if self._closes or self._close or self._force_close:
            waiter.cancel()
            if self.transport is not None and not self._force_close:
                self.transport.close()
        elif self._messages:
            waiter.set_result(None)
        else:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            if self._keepalive_handle is None:
                self._keepalive_handle = self._loop.call_at(
                    self._next_keepalive_close_time, self._process_keepalive
                )

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._grace is not None:
            self._grace.cancel()
        give_up, self._give_up = self._give_up, None
        if give_up is not None:
            give_up()

    @property
    def is_leaving(self) -> bool:
        """Whether an answer should be the last on this connection."""
        return self._listener.is_leaving or (self._is_half_closed and not self._messages)

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


def new_parser(
    connection: Connection, loop: asyncio.AbstractEventLoop, limits: HttpLimits
) -> HttpRequestParser:
    """A parser as aiohttp makes one for a connection."""
    return HttpRequestParser(
        connection,
        loop,
        _READ_BUFFER_BYTES,
        max_line_size=limits.max_header_line_bytes,
        max_field_size=limits.max_header_line_bytes,
        max_headers=limits.max_headers,
        payload_exception=web.RequestPayloadError,
        auto_decompress=False,
    )


class Listener(web.Server):
    """Makes connections and counts them; looks for late heads every second."""

    def __init__(
        self,
        handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        limits: HttpLimits,
        make_request_id: Callable[[], str],
        begin: Begin,
    ) -> None:
        super().__init__(handle, handler_cancellation=True)
        self._limits = limits
        self._open: dict[web.RequestHandler, asyncio.Transport] = {}
        self.is_leaving = False
        """Whether the server is about to stop: clients are asked to close their connections."""
        self.make_request_id = make_request_id
        self.begin = begin

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
