"""Requests that are answered by callbacks: all here, and nothing about them that has to be asked or
waited for but a model. That is most of them.

The same bytes of a head always say the same. So a head that has been answered once is known by its
bytes, and the next request with it, on any connection, is not parsed.
"""

import logging

from aiohttp import HttpVersion11, StreamReader
from aiohttp.hdrs import ACCEPT_ENCODING, CONTENT_ENCODING, HOST
from aiohttp.http import RawRequestMessage

from trivet.backends.api import InvalidRequest
from trivet.server.http.connection import Connection
from trivet.server.http.deadline import HEADER as TIMEOUT
from trivet.server.http.head import Head, header_length_of
from trivet.server.http.host import is_host
from trivet.server.http.pipelined import HEAD_END
from trivet.server.http.request_ids import RequestIds
from trivet.server.http.routes import Begin, Target
from trivet.server.http.sinks import Exchange
from trivet.server.tracing.tracing import Tracing

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
        if len(self._targets) >= _REMEMBERED_PATHS:
            self._targets.clear()
        if len(raw_path) <= _REMEMBERED_CHARACTERS:
            self._targets[raw_path] = target

    def begin(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: Connection,
        data: bytes,
    ) -> bool:
        """Begins to answer a request; False: it needs a task. `data`: what came together with its
        end; its head is remembered where that is this one request and nothing else."""
        target = self._targets.get(message.path)
        if target is None or not payload.is_eof() or not self._is_plain():
            return False
        head = _head_of(message, target, payload.total_bytes)
        if head is None:
            return False
        begin = target.route.begin
        assert begin is not None, "only such are remembered"
        connection.take()
        self._exchange(head, begin, payload.read_nowait(), connection)
        size_bytes = len(data) - head.body_bytes
        if size_bytes <= _REMEMBERED_BYTES and data.find(HEAD_END) + len(HEAD_END) == size_bytes:
            if len(self._heads) >= _REMEMBERED_HEADS:
                self._heads.clear()
            self._heads[data[:size_bytes]] = head, begin
        return True

    def begin_known(self, data: bytes, connection: Connection) -> bool:
        """The same for bytes that begin a message and were not parsed; False: parse them."""
        size_bytes = data.find(HEAD_END) + len(HEAD_END)
        known = self._heads.get(data[:size_bytes])
        if known is None or not self._is_plain():
            return False
        head, begin = known
        if len(data) != size_bytes + head.body_bytes:
            return False
        self._exchange(head, begin, data[size_bytes:], connection)
        return True

    def _exchange(self, head: Head, begin: Begin, body: bytes, connection: Connection) -> None:
        exchange = Exchange(connection, head, head.request_id or self._make_id(), body)
        connection.hold(exchange.give_up)
        exchange.run(begin)

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
    except InvalidRequest:
        return None
    return Head(
        message,
        target.model,
        target.version,
        RequestIds.given(headers),
        header_length,
        headers.get(ACCEPT_ENCODING),
        body_bytes,
    )
