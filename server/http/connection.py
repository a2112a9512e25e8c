"""One TCP connection: aiohttp's protocol plus what it lacks: a time limit for request heads, and
requests that are answered without a task."""

import asyncio
import itertools
import logging
from http import HTTPStatus
from typing import Protocol, cast

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong

from trivet.server.http.answers import error_answer
from trivet.server.http.body import too_large
from trivet.server.http.chunks import ChunkSizes
from trivet.server.http.latest import Latest
from trivet.server.http.limits import HttpLimits
from trivet.server.http.listener import Listener
from trivet.server.http.parser import new_parser
from trivet.server.http.pipelined import HEAD_END, begin_of_body, owed_behind

_log = logging.getLogger(__name__)
HALF_CLOSED_S = 1.0
"""How long a request may still take whose client has closed its half of the connection."""
_FULL_TEXT = b'{"error":"too many connections are open"}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%b"
) % (len(_FULL_TEXT), _FULL_TEXT)


class Begins(Protocol):
    """Answers requests by callbacks, between `hold` and `release`."""

    def begin(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: "Connection",
        data: bytes,
    ) -> bool:
        """A request that has begun to come, with `data` at last; False: it needs a task."""

    def begin_known(self, data: bytes, connection: "Connection") -> bool:
        """Bytes in which a request begins; False: they are to be parsed."""


class Held(Protocol):
    """A request that is answered by callbacks."""

    def give_up(self) -> None:
        """Its client is gone."""


class Connection(web.RequestHandler):
    """Reads requests one after another and hands each to the door."""

    __slots__ = (
        "_begins",
        "_body",
        "_chunks",
        "_closes",
        "_grace",
        "_head",
        "_head_since",
        "_held",
        "_held_waiter",
        "_is_broken",
        "_is_busy",
        "_is_half_closed",
        "_is_unread",
        "_limits",
        "_listener",
        "_owed",
        "latest",
    )

    def __init__(self, listener: Listener, limits: HttpLimits, begins: Begins) -> None:
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
        self._begins = begins
        self._head = b""
        """What has come of a head that is not whole."""
        self._body: StreamReader | None = None
        """Of the request that came last."""
        self._chunks: ChunkSizes | None = None
        """Of that body, if it comes in chunks and is not whole."""
        self._owed: int | None = 0
        """Bytes of the last body that have not come; 0: what comes next begins a message. None: it
        is not known, and will not be on this connection."""
        self._is_half_closed = False
        """Whether the client sends no more, and something that it asked for is under way."""
        self._grace: asyncio.TimerHandle | None = None
        self._is_broken = False
        self._is_busy = False
        self._held_waiter: asyncio.Future[None] | None = None
        """What aiohttp's loop waits for, while a request is answered without it."""
        self._held: Held | None = None
        self._closes = False
        self.latest: Latest | None = None
        """Where it may come again. The door's."""
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
        waiter = self._waiter
        # Where the next byte begins a message, and nothing is under way. The first one is parsed.
        if (
            waiter is not None
            and self._owed == 0
            and self._body is not None
            and not waiter.done()
            and self._begins.begin_known(data, self)
        ):
            return
        # Its loop is woken below, if this is nothing that can be answered here.
        self._waiter = None
        begins_message = self._owed == 0
        messages = self._messages
        num_before = len(messages)
        num_read = 0 if self._body is None else self._body.total_bytes
        super().data_received(data)
        if len(messages) > num_before:
            self._came(data, num_before, num_read)
        elif self._chunks is not None:
            self._check_chunks(data)
        elif self._body is None or self._body.is_eof():
            self._head += data
        self._owed = self._owed_after(data, len(messages) - num_before)
        self._waiter = waiter
        if messages:
            if waiter is not None and not waiter.done():
                is_alone = begins_message and self._owed is not None
                if len(messages) == 1 and self._begin(data if is_alone else b""):
                    return
                waiter.set_result(None)
            # aiohttp would queue an error with a copy of the bytes for each further piece.
            self._is_broken = not isinstance(messages[-1][0], RawRequestMessage)
        if self._head_since is None and not self._is_busy:
            self._head_since = self._loop.time()

    def _owed_after(self, data: bytes, num_came: int) -> int | None:
        """Counted from the first byte on, and compared with the parser: what is answered without it
        must begin where it would begin. Only whole requests and bodies of a given length count;
        after anything else nothing is known."""
        if self._owed is None or (self._owed == 0 and num_came != 1):
            return None
        if self._owed:
            owed = self._owed - len(data)
        else:
            message, _ = self._messages[-1]
            owed = owed_behind(data, message) if isinstance(message, RawRequestMessage) else -1
        is_known = owed >= 0 and num_came == (self._owed == 0)
        return (
            owed
            if is_known and self._body is not None and self._body.is_eof() == (owed == 0)
            else None
        )

    def _came(self, data: bytes, num_before: int, num_read: int) -> None:
        """One request or several, or an error, were found in these bytes and the head before.
        `num_read` bytes of the body before had come."""
        head, self._head = self._head, b""
        message, body = self._messages[-1]
        if not isinstance(message, RawRequestMessage):
            self._recover(head + self._behind_body(data, num_read), num_before)
            return
        if message.chunked and not body.is_eof():
            new = head + self._behind_body(data, num_read)
            self._body, self._chunks = body, ChunkSizes()
            self._check_chunks(new[begin_of_body(new, self._requests(num_before)) :])
        else:
            self._body, self._chunks = body, None

    def _behind_body(self, data: bytes, num_read: int) -> bytes:
        """What of these bytes does not belong to the body before, which they end."""
        if self._chunks is not None:
            return self._chunks.behind(data)
        return data if self._body is None else data[self._body.total_bytes - num_read :]

    def _requests(self, first: int) -> list[RawRequestMessage]:
        """Those that have come and wait, from one on."""
        waiting = itertools.islice(self._messages, first, None)
        return [message for message, _ in waiting if isinstance(message, RawRequestMessage)]

    def _recover(self, data: bytes, num_before: int) -> None:
        """aiohttp's parser forgets the good requests before what is none in the same bytes: a new
        one gets them piece by piece."""
        if len(self._messages) > num_before + 1 or HEAD_END not in data:
            return
        error = self._messages.pop()
        self._parser = new_parser(self, self._loop, self._limits)
        for piece in data.split(HEAD_END):
            super().data_received(piece + HEAD_END)
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

    @property
    def limits(self) -> HttpLimits:
        """The door's."""
        return self._limits

    def _begin(self, data: bytes) -> bool:
        message, payload = self._messages[0]
        return (
            isinstance(message, RawRequestMessage)
            and not self._buffer_paused
            and not self._upgraded
            and self._begins.begin(message, payload, self, data)
        )

    def take(self) -> None:
        """The request that was parsed is answered by callbacks: `hold` follows."""
        self._messages.popleft()
        assert self._parser is not None
        self._parser.message_consumed()

    def hold(self, held: Held) -> None:
        """A request is answered by callbacks, and `release` follows."""
        self._listener.requests_count += 1
        self._held_waiter, self._waiter = self._waiter, None
        self._held = held
        self._request_in_progress = True
        # As `mark_busy` does.
        self._head_since = None
        self._is_busy = True

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
        self._held = None
        self._request_in_progress = self._is_busy = False
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
        held, self._held = self._held, None
        if held is not None:
            held.give_up()

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
