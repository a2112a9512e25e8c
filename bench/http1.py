"""A load client's HTTP/1.1 connection: one prebuilt request at a time, as cheap as can be."""

import asyncio
import time
from collections.abc import Iterator
from typing import cast

from bench.recorder import LoadFailed, Parts, Recorder


def request_bytes(path: str, headers: dict[str, str], body: bytes) -> bytes:
    """A whole keep-alive POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class HttpConnection(asyncio.Protocol):
    """Sends the next request as soon as an answer is whole; reads only status and
    Content-Length."""

    def __init__(
        self, requests: Iterator[bytes], recorder: Recorder, failed: "asyncio.Future[None]"
    ) -> None:
        """`requests`: without an end, shared by all connections."""
        self._requests = requests
        self._recorder = recorder
        self._failed = failed
        self._parts: Parts = []
        self._missing_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        if self._missing_bytes:
            self._missing_bytes -= len(data)
        elif not self._read_head():
            return
        if self._missing_bytes == 0:
            self._recorder.answered(self._sent_ns, self._parts)
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server closed the connection: {exc}")

    def _send(self) -> None:
        self._parts = []
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(next(self._requests))

    def _read_head(self) -> bool:
        """Whether the head was whole; then `_missing_bytes` is what is still to come."""
        data = b"".join(self._parts)
        self._parts = [data]
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = data[:end].lower()
        start = head.find(b"\r\ncontent-length:")
        if not head.startswith(b"http/1.1 200") or start < 0:
            self._fail(f"unexpected answer: {data[:300]!r}")
            return False
        size = int(head[start + 17 :].split(b"\r\n", 1)[0])
        self._missing_bytes = end + 4 + size - len(data)
        return True

    def _fail(self, text: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(LoadFailed(text))
