"""Requests that are answered by callbacks: all here, and nothing about them that has to be asked or
waited for but a model. That is most of them.

The same bytes of a head always say the same. So a head that has been answered once is known by its
bytes, and the next request with it, on any connection, is not parsed. A large body behind it is
read into its place.
"""

import logging

from aiohttp import HttpVersion11, StreamReader
from aiohttp.hdrs import ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HOST
from aiohttp.http import RawRequestMessage

from trivet.backends.api import InvalidRequest
from trivet.server.http.answers import error_answer
from trivet.server.http.body import too_slow
from trivet.server.http.connection import Connection
from trivet.server.http.deadline import HEADER as TIMEOUT
from trivet.server.http.head import Head, header_length_of
from trivet.server.http.host import is_host
from trivet.server.http.in_place import LARGE_BYTES, BodyInPlace
from trivet.server.http.latest import Latest
from trivet.server.http.pipelined import HEAD_END
from trivet.server.http.request_ids import RequestIds
from trivet.server.http.routes import Begin, Target
from trivet.server.http.sinks import Exchange
from trivet.server.protocol.versions import version_in
from trivet.server.tracing.tracing import Tracing

_TRACEPARENT = "traceparent"
_REMEMBERED_PATHS = 4096
_REMEMBERED_CHARACTERS = 512
_REMEMBERED_HEADS = 1024
_REMEMBERED_BYTES = 2048


class AtOnce:
    """Begins such requests. Remembers paths and heads: no more of either, and none longer, than the
    constants above say. Owned by the event loop."""

    def __init__(self, ids: RequestIds, tracing: Tracing, log: logging.Logger) -> None:
        """`log`: the one that has a line for each request at the level of debugging, which takes a
        task."""
        self._make_id = ids.make
        self._tracing = tracing
        self._log = log
        self._targets: dict[str, Target] = {}
        """By raw path."""
        self._heads: dict[bytes, tuple[Head, Begin]] = {}
        """By their bytes, with who answers."""

    def remember(self, raw_path: str, target: Target) -> None:
        """Requests to this path need no leave, and its route answers by callbacks."""
        if len(raw_path) > _REMEMBERED_CHARACTERS:
            return
        if len(self._targets) >= _REMEMBERED_PATHS:
            del self._targets[next(iter(self._targets))]
        self._targets[raw_path] = target

    def begin(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: Connection,
        data: bytes,
    ) -> bool:
        """Begins to answer a request that has come whole; False: it needs a task. `data`: its
        bytes, where they came alone, from their first on; its head is remembered then."""
        target = self._targets.get(message.path)
        if target is None or not self._is_plain():
            return False
        if not payload.is_eof():
            self._remember_large(message, target, data)
            return False
        head = _head_of(message, target, payload.total_bytes)
        if head is None:
            return False
        begin = target.route.begin
        assert begin is not None, "only such are remembered"
        connection.take()
        exchange = Exchange(
            connection, head, head.request_id or self._make_id(), payload.read_nowait()
        )
        connection.hold(exchange)
        exchange.run(begin)
        self._remember_head(data[: len(data) - head.body_bytes], head, begin)
        return True

    def _remember_large(self, message: RawRequestMessage, target: Target, data: bytes) -> None:
        """The head of a body that will come in pieces, which are tensors for the most part."""
        size_text = message.headers.get(CONTENT_LENGTH)
        if size_text is None or int(size_text) < LARGE_BYTES:
            return
        head = _head_of(message, target, int(size_text))
        if head is not None and head.header_length is not None:
            assert target.route.begin is not None, "only such are remembered"
            head_bytes = data.find(HEAD_END) + len(HEAD_END)
            self._remember_head(data[:head_bytes], head, target.route.begin)

    def _remember_head(self, data: bytes, head: Head, begin: Begin) -> None:
        """By these bytes, if they say what was parsed, and may come again."""
        message = head.message
        # Those that name one request never come again; who waits for leave to go on is to be told.
        if head.request_id or _TRACEPARENT in message.headers or EXPECT in message.headers:
            return
        line = f"{message.method} {message.path} HTTP/1.1\r\n".encode("utf-8", "surrogateescape")
        is_alone = data.startswith(line) and data.find(HEAD_END) == len(data) - len(HEAD_END)
        num_lines = len(message.raw_headers) + 2
        if not is_alone or len(data) > _REMEMBERED_BYTES or data.count(b"\r\n") != num_lines:
            return
        if len(self._heads) >= _REMEMBERED_HEADS:
            del self._heads[next(iter(self._heads))]
        self._heads[data] = head, begin

    def begin_known(self, data: bytes, connection: Connection) -> bool:
        """The same for bytes that begin a message and were not parsed; False: parse them."""
        latest = connection.latest
        if (
            latest is not None
            and len(data) == latest.size_bytes
            and data.startswith(latest.prefix)
            and self._is_plain()
        ):
            exchange = Exchange(
                connection, latest.head, self._make_id(), data[len(latest.prefix) :], latest.plan
            )
            connection.hold(exchange)
            exchange.run(latest.begin)
            return True
        size_bytes = data.find(HEAD_END) + len(HEAD_END)
        known = self._heads.get(data[:size_bytes])
        if known is None:
            return False
        head, begin = known
        if not self._is_plain():
            return False
        if len(data) != size_bytes + head.body_bytes:
            return self._begin_large(data, size_bytes, head, begin, connection)
        # Such a head has no id.
        exchange = Exchange(connection, head, self._make_id(), data[size_bytes:])
        connection.hold(exchange)
        exchange.run(begin)
        plan, header_length = exchange.plan, head.header_length
        if plan is not None and header_length is not None:
            prefix = data[: size_bytes + header_length]
            connection.latest = Latest(prefix, len(data), head, plan, begin)
        return True

    def _begin_large(
        self, data: bytes, head_bytes: int, head: Head, begin: Begin, connection: Connection
    ) -> bool:
        """The same where the body has only begun to come."""
        limits, align_at = connection.limits, head.header_length
        is_large = LARGE_BYTES <= head.body_bytes <= limits.max_body_bytes
        if not is_large or align_at is None or len(data) > head_bytes + head.body_bytes:
            return False
        exchange = Exchange(connection, head, self._make_id(), b"")

        def whole(body: memoryview) -> None:
            exchange.body = body
            exchange.run(begin)

        def late() -> None:
            error = too_slow(limits)
            exchange.refuse(error_answer(error.status, error.message, closes=True))

        connection.hold(exchange)
        begun = memoryview(data)[head_bytes:]
        BodyInPlace(connection, head.body_bytes, align_at, begun, whole, late)
        return True

    def _is_plain(self) -> bool:
        """Whether requests are neither traced nor logged one by one now."""
        return self._tracing.tracer is None and not self._log.isEnabledFor(logging.DEBUG)


def _head_of(message: RawRequestMessage, target: Target, body_bytes: int) -> Head | None:
    """None where something has to be waited for, or refused in a way that needs a request."""
    headers, route = message.headers, target.route
    if message.method != route.method or message.version != HttpVersion11 or message.chunked:
        return None
    host = headers.get(HOST)
    if TIMEOUT in headers or CONTENT_ENCODING in headers or (host and not is_host(host)):
        return None
    try:
        header_length = header_length_of(headers)
        version = target.version if target.version is not None else version_in(headers)
    except InvalidRequest:
        return None
    return Head(
        message,
        target.model,
        version,
        RequestIds.given(headers),
        header_length,
        headers.get(ACCEPT_ENCODING),
        body_bytes,
        message.should_close,
    )
