"""A load client's gRPC connection: just enough HTTP/2 to keep a number of unary calls in flight.

Its first HEADERS block puts the headers into the peer's HPACK table, later ones are seven indexed
bytes, as real clients' are. It obeys both flow-control windows and answers SETTINGS and PING.
Frame layout: RFC 9113, section 4.1; HPACK: RFC 7541.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

from bench.recorder import LoadFailed, Parts, Recorder

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
OUR_STREAM_WINDOW = 2**31 - 1
OUR_FRAME_SIZE = 2**20
OUR_REFILL = 2**29


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def header_blocks(path: str, authority: str) -> tuple[bytes, bytes]:
    """The block of a connection's first request, and of all later ones."""

    def text(value: str) -> bytes:
        return bytes((len(value),)) + value.encode()

    post_http = b"\x83\x86"
    first = post_http + b"\x44" + text(path) + b"\x41" + text(authority)
    first += b"\x40" + text("te") + text("trailers")
    first += b"\x5f" + text("application/grpc") + b"\x7a" + text("trivet-bench")
    return first, post_http + bytes(0x80 | index for index in (66, 65, 64, 63, 62))


@dataclass(slots=True)
class _Call:
    sent_ns: int
    parts: Parts = field(default_factory=list)


@dataclass(slots=True)
class _Upload:
    """A request of which a part waits for window."""

    stream: int
    window_bytes: int
    position: int = 0


class GrpcConnection(asyncio.Protocol):
    """Keeps `num_streams` calls in flight; each answer starts the next call."""

    def __init__(
        self,
        message: bytes,
        path: str,
        num_streams: int,
        recorder: Recorder,
        failed: "asyncio.Future[None]",
    ) -> None:
        self._body = b"\0" + len(message).to_bytes(4, "big") + message
        self._view = memoryview(self._body)
        self._num_streams = num_streams
        self._recorder = recorder
        self._failed = failed
        self._block, self._later_block = header_blocks(path, "127.0.0.1")
        self._next_stream = 1
        self._calls: dict[int, _Call] = {}
        self._uploads: dict[int, _Upload] = {}
        self._out: list[bytes | memoryview] = []
        self._rest = b""
        self._data_stream = self._data_left = 0
        self._window_bytes = self._stream_window_bytes = 65535
        self._peer_frame_size = 16384
        self._consumed_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        window = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + OUR_STREAM_WINDOW.to_bytes(4, "big")
        size = MAX_FRAME_SIZE.to_bytes(2, "big") + OUR_FRAME_SIZE.to_bytes(4, "big")
        self._out += [PREFACE, frame(SETTINGS, 0, 0, window + size), self._refill()]
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server closed the connection: {exc}")

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        position = 0
        while True:
            if self._data_left:
                position = self._take_data(data, position)
                if self._data_left:
                    break
            if len(data) - position < 9:
                break
            size = int.from_bytes(data[position : position + 3], "big")
            kind, flags = data[position + 3], data[position + 4]
            stream = int.from_bytes(data[position + 5 : position + 9], "big")
            if kind == DATA:
                self._begin_data(flags, stream, size)
                position += 9
                continue
            if len(data) - position < 9 + size:
                break
            self._on_frame(kind, flags, stream, data[position + 9 : position + 9 + size])
            position += 9 + size
        self._rest = data[position:]
        self._flush()

    def _begin_data(self, flags: int, stream: int, size: int) -> None:
        if flags & (END_STREAM | PADDED):
            self._fail("a DATA frame is padded or ends its stream")
        self._data_stream, self._data_left = stream, size
        self._consumed_bytes += size
        if self._consumed_bytes > OUR_REFILL // 2:
            self._consumed_bytes -= OUR_REFILL // 2
            self._out.append(frame(WINDOW_UPDATE, 0, 0, (OUR_REFILL // 2).to_bytes(4, "big")))

    def _take_data(self, data: bytes, position: int) -> int:
        chunk = data[position : position + self._data_left]
        self._data_left -= len(chunk)
        self._calls[self._data_stream].parts.append(chunk)
        return position + len(chunk)

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            if flags & END_STREAM:
                self._end_call(stream)
        elif kind == WINDOW_UPDATE:
            self._on_window(stream, int.from_bytes(payload, "big"))
        elif kind == PING and not flags & ACK:
            self._out.append(frame(PING, ACK, 0, payload))
        elif kind == SETTINGS and not flags & ACK:
            self._on_settings(payload)
        elif kind in (RST_STREAM, GOAWAY):
            self._fail(f"the server sent frame type {kind}: {payload!r}")

    def _on_settings(self, payload: bytes) -> None:
        is_first = self._next_stream == 1
        for start in range(0, len(payload), 6):
            key = int.from_bytes(payload[start : start + 2], "big")
            value = int.from_bytes(payload[start + 2 : start + 6], "big")
            if key == MAX_FRAME_SIZE:
                self._peer_frame_size = value
            elif key == INITIAL_WINDOW_SIZE:
                for upload in self._uploads.values():
                    upload.window_bytes += value - self._stream_window_bytes
                self._stream_window_bytes = value
        self._out.append(frame(SETTINGS, ACK, 0))
        if is_first:
            for _ in range(self._num_streams):
                self._begin_call()
        else:
            self._upload()

    def _on_window(self, stream: int, added_bytes: int) -> None:
        if stream == 0:
            self._window_bytes += added_bytes
        elif stream in self._uploads:
            self._uploads[stream].window_bytes += added_bytes
        self._upload()

    def _end_call(self, stream: int) -> None:
        call = self._calls.pop(stream)
        if not call.parts:
            self._fail("a call ended without a message: the server answered with an error")
            return
        self._recorder.answered(call.sent_ns, call.parts)
        self._begin_call()

    def _begin_call(self) -> None:
        stream = self._next_stream
        self._next_stream += 2
        self._calls[stream] = _Call(time.perf_counter_ns())
        self._out.append(frame(HEADERS, END_HEADERS, stream, self._block))
        self._block = self._later_block
        self._uploads[stream] = _Upload(stream, self._stream_window_bytes)
        self._upload()

    def _upload(self) -> None:
        """Sends what the windows allow of the requests that wait."""
        for upload in list(self._uploads.values()):
            self._upload_some(upload)
            if upload.position == len(self._body):
                del self._uploads[upload.stream]

    def _upload_some(self, upload: _Upload) -> None:
        while (missing := len(self._body) - upload.position) > 0:
            size = min(missing, self._peer_frame_size, self._window_bytes, upload.window_bytes)
            if size <= 0:
                return
            flags = END_STREAM if size == missing else 0
            head = size.to_bytes(3, "big") + bytes((DATA, flags)) + upload.stream.to_bytes(4, "big")
            self._out += [head, self._view[upload.position : upload.position + size]]
            upload.position += size
            upload.window_bytes -= size
            self._window_bytes -= size

    def _refill(self) -> bytes:
        return frame(WINDOW_UPDATE, 0, 0, OUR_REFILL.to_bytes(4, "big"))

    def _flush(self) -> None:
        if not self._out:
            return
        self._transport.writelines(self._out)
        self._out = []

    def _fail(self, text: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(LoadFailed(text))
