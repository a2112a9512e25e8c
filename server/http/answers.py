"""Complete answers: head and body in one write."""

import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

import orjson
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from trivet.server.http.errors import CLIENT_CLOSED_REQUEST

Buffer = bytes | bytearray | memoryview

JSON = "application/json"
BINARY = "application/octet-stream"
_NO_HEADERS: Mapping[str, str] = {}
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
        extra_headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        super().__init__(status=status)
        self.request_id = ""
        self.more_headers = _NO_HEADERS
        """What the door adds to every answer."""
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
        head = self._head(request)
        if request.method == "HEAD":
            transport.write(head)
        elif self._size_bytes < _JOIN_BELOW_BYTES:
            transport.write(b"".join((head, *self._parts)))
        else:
            transport.write(head)
            for part in self._parts:
                transport.write(part)
        self._written_to = request
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        assert not data
        protocol = self._written_to.protocol
        if protocol.writing_paused:
            await self._written_to.writer.drain()

    def _head(self, request: web.BaseRequest) -> bytes:
        lines = (
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, '')}\r\n"
            f"Content-Length: {self._size_bytes}\r\n"
            f"Date: {_http_date(int(time.time()))}\r\n"
            f"x-request-id: {self.request_id}\r\n"
        )
        if self._size_bytes or self._type != JSON:
            lines += f"Content-Type: {self._type}\r\n"
        for name, value in self._extra_headers.items():
            lines += f"{name}: {value}\r\n"
        for name, value in self.more_headers.items():
            lines += f"{name}: {value}\r\n"
        if not self._keep_alive:
            lines += "Connection: close\r\n"
        elif request.version < (1, 1):
            lines += "Connection: keep-alive\r\n"
        return f"{lines}\r\n".encode("latin-1")


def json_answer(document: object, *, status: int = 200) -> Answer:
    """An answer of one JSON document."""
    return Answer((orjson.dumps(document),), status=status)


def empty_answer() -> Answer:
    """The answer of commands that have nothing to say but that they succeeded."""
    return Answer()


def error_answer(
    status: int, message: str, headers: Mapping[str, str] = _NO_HEADERS, *, closes: bool = False
) -> Answer:
    """The one form that every error has: {"error": "..."}."""
    # Text may quote the client's bytes, decoded with surrogates, which JSON cannot hold.
    text = message.encode(errors="replace").decode()
    answer = Answer((orjson.dumps({"error": text}),), status=status, extra_headers=headers)
    if closes:
        answer.force_close()
    return answer


@lru_cache(maxsize=2)
def _http_date(now_s: int) -> str:
    # A date is wall clock time by its meaning.
    return formatdate(now_s, usegmt=True)
