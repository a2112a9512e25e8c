"""Complete answers: head and body in one write."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

import orjson
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from trivet.backends.api import ServingError
from trivet.server.http.errors import CLIENT_CLOSED_REQUEST, headers_of, status_of

Buffer = bytes | bytearray | memoryview

JSON = "application/json"
BINARY = "application/octet-stream"
CLOSE = "Connection: close\r\n"
NO_HEADERS: Mapping[str, str] = {}
_REASONS = {status.value: status.phrase for status in HTTPStatus} | {
    CLIENT_CLOSED_REQUEST: "Client Closed Request"
}
# Below this, joining the parts costs less than handing them to the transport one by one.
_JOIN_BELOW_BYTES = 128 * 1024


class Answer(web.StreamResponse):
    """An answer whose every byte is known.

    It writes its own head: aiohttp's header map, length and compression logic takes 8 us more per
    answer. `parts` are not joined when they are large, and must not change until they are written.
    """

    def __init__(
        self,
        parts: Sequence[Buffer] = (),
        *,
        status: int = 200,
        content_type: str = JSON,
        extra_headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        super().__init__(status=status)
        self.request_id = ""
        self.more_headers = NO_HEADERS
        """What the door adds to every answer."""
        self.told = NO_HEADERS
        """Of the version that computed it; see Admitted."""
        self.on_sent: Callable[[], None] | None = None
        """Called when it has been written, or cannot be."""
        self._parts = parts
        self._size_bytes = sum(map(len, parts))
        self._type = content_type
        self._extra_headers = extra_headers

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        try:
            return self._write(request)
        finally:
            if self.on_sent is not None:
                self.on_sent()

    def _write(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._keep_alive = request.keep_alive and self._keep_alive is not False
        connection = CLOSE
        if self._keep_alive:
            connection = "" if request.version >= (1, 1) else "Connection: keep-alive\r\n"
        head = self.head(connection)
        if request.method == "HEAD":
            transport.write(head)
        else:
            write_parts(transport, head, self._parts, self._size_bytes)
        self._written_to = request
        return request.writer

    def write_to(self, transport: asyncio.Transport, *, keep_alive: bool) -> bool:
        """Writes all of it to a client of HTTP/1.1; returns whether the connection stays."""
        keep_alive = keep_alive and self._keep_alive is not False
        head = self.head("" if keep_alive else CLOSE)
        write_parts(transport, head, self._parts, self._size_bytes)
        return keep_alive

    async def write_eof(self, data: bytes = b"") -> None:
        assert not data
        protocol = self._written_to.protocol
        if protocol.writing_paused:
            await self._written_to.writer.drain()

    def head(self, connection: str) -> bytes:
        """Status line and headers; `connection` is one of them, as a line, or nothing."""
        return head_of(
            self.status,
            self._size_bytes,
            self.request_id,
            self._type,
            {**self._extra_headers, **self.more_headers, **self.told},
            connection,
        )


def head_of(
    status: int,
    size_bytes: int,
    request_id: str,
    content_type: str,
    headers: Mapping[str, str],
    connection: str = "",
) -> bytes:
    """The head of an answer, to its blank line."""
    begin = begin_of_head(status, size_bytes, content_type, headers)
    return b"".join((begin, *_end_of_head(request_id, connection)))


def begin_of_head(
    status: int, size_bytes: int, content_type: str, headers: Mapping[str, str]
) -> bytes:
    """What does not differ from one such answer to the next."""
    lines = _first_lines(status, size_bytes, content_type)
    for name, value in headers.items():
        lines += f"{name}: {value}\r\n"
    return lines.encode("latin-1")


def _end_of_head(request_id: str, connection: str) -> tuple[bytes, bytes, bytes]:
    # The id is the client's own, or ours.
    return (
        _date_line(int(time.time())),
        request_id.encode("latin-1"),
        b"\r\n\r\n" if not connection else f"\r\n{connection}\r\n".encode("latin-1"),
    )


@lru_cache(maxsize=1024)
def _first_lines(status: int, size_bytes: int, content_type: str) -> str:
    """What the answers of a model to one kind of request have alike."""
    lines = f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\nContent-Length: {size_bytes}\r\n"
    if size_bytes or content_type != JSON:
        lines += f"Content-Type: {content_type}\r\n"
    return lines


def write_behind(
    transport: asyncio.Transport,
    begin: bytes,
    request_id: str,
    connection: str,
    parts: Sequence[Buffer],
    size_bytes: int,
) -> None:
    """An answer whose head begins so; `connection` is one of its lines, or nothing."""
    end = _end_of_head(request_id, connection)
    if size_bytes < _JOIN_BELOW_BYTES:
        transport.write(b"".join((begin, *end, *parts)))
    else:
        write_parts(transport, b"".join((begin, *end)), parts, size_bytes)


def write_parts(
    transport: asyncio.Transport, head: bytes, parts: Sequence[Buffer], size_bytes: int
) -> None:
    """A head and what belongs to it, in one write where joining costs less than several."""
    if size_bytes < _JOIN_BELOW_BYTES:
        transport.write(b"".join((head, *parts)))
        return
    transport.write(head)
    for part in parts:
        transport.write(part)


def json_answer(document: object, *, status: int = 200) -> Answer:
    """An answer of one JSON document."""
    return Answer((orjson.dumps(document),), status=status)


def empty_answer() -> Answer:
    """The answer of commands that have nothing to say but that they succeeded."""
    return Answer()


def error_answer(
    status: int, message: str, headers: Mapping[str, str] = NO_HEADERS, *, closes: bool = False
) -> Answer:
    """The one form that every error has: {"error": "..."}."""
    # Text may quote the client's bytes, decoded with surrogates, which JSON cannot hold.
    text = message.encode(errors="replace").decode()
    answer = Answer((orjson.dumps({"error": text}),), status=status, extra_headers=headers)
    if closes:
        answer.force_close()
    return answer


def target_text(method: str, raw_path: str) -> str:
    """Method and path for a log line: short, and without control characters."""
    return f"{method} {raw_path[:200]!a}"


def refusal_of(error: ServingError) -> Answer:
    """The answer that an error of the tree is."""
    status = status_of(error)
    closes = status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return error_answer(status, error.message, headers_of(error), closes=closes)


def fault_answer(request_id: str) -> Answer:
    """The answer where the fault is ours: what it was stays in the log."""
    return error_answer(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        f"internal error; the server log has the details under request id {request_id}",
    )


@lru_cache(maxsize=2)
def _date_line(now_s: int) -> bytes:
    # A date is wall clock time by its meaning.
    return f"Date: {formatdate(now_s, usegmt=True)}\r\nx-request-id: ".encode()
