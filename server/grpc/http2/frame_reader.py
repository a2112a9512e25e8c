"""Bytes of one connection to frames; a DATA payload that is not whole yet goes on as it comes, in
place where it is large."""

from collections.abc import Callable
from typing import Protocol

from trivet.server.grpc.http2.frames import (
    END_STREAM,
    HEAD_BYTES,
    PADDED,
    PREFACE,
    ConnectionFault,
    ErrorCode,
    Kind,
    unpack_head,
)

RECEIVE_BYTES = 64 * 1024
MAX_DATA_BYTES = 1024 * 1024
"""The SETTINGS_MAX_FRAME_SIZE that we announce."""
MAX_OTHER_BYTES = 64 * 1024
"""The same for frames other than DATA: nobody sends headers in larger ones."""
DATA = int(Kind.DATA)
"""A constant: looking up an enum's member costs as much as a call."""
BATCH = 256
"""Frames taken before the other connections get their turn."""


class DataSink(Protocol):
    """Takes the payload of a DATA frame as it comes."""

    def on_data_head(self, stream_id: int, size: int) -> None:
        """A frame begins."""

    def on_data(self, stream_id: int, data: bytes) -> None:
        """The next part of its payload."""

    def on_data_end(self, stream_id: int, *, is_last: bool) -> None:
        """Its end, and whether the client sends no more."""

    def place(self, stream_id: int) -> memoryview | None:
        """Where to receive the next part of a large message."""

    def on_placed(self, stream_id: int, size: int) -> None:
        """So much has been received there."""


def held_bytes(size: int, kind: int, flags: int) -> int:
    """How much of a frame's payload must have come before the frame is taken.

    Nothing of DATA, which goes on as it comes, unless its padding has to be found; nothing of a
    frame that is too large, whose head alone is refused; else all of it. Whether there is something
    to go on with and whether it can be taken are both decided by this.
    """
    if kind == DATA:
        return size if flags & PADDED and size <= MAX_DATA_BYTES else 0
    return size if size <= MAX_OTHER_BYTES else 0


class FrameReader:
    """Reads into its own buffer, or where the sink has a place."""

    def __init__(
        self,
        on_preface: Callable[[], None],
        on_frame: Callable[[int, int, int, bytes], None],
        sink: DataSink,
    ) -> None:
        self._on_preface = on_preface
        self._on_frame = on_frame
        self._sink = sink
        self.has_preface = False
        self._view = memoryview(bytearray(RECEIVE_BYTES))
        self._rest = bytearray()
        self._data_stream = 0
        self._data_flags = 0
        self._data_left = 0
        self._is_placed = False

    @property
    def has_backlog(self) -> bool:
        """Whether whole frames may wait for `go_on`."""
        return bool(self._rest) and not self._is_short(self._rest)

    def get_buffer(self) -> memoryview:
        """Where the socket should write."""
        self._is_placed = False
        if self._data_left and not self._rest:
            place = self._sink.place(self._data_stream)
            if place is not None:
                self._is_placed = True
                return place[: self._data_left]
        return self._view

    def on_received(self, size: int) -> None:
        """The socket has written `size` bytes. Raises ConnectionFault, StreamFault."""
        if self._is_placed:
            self._is_placed = False
            self._data_left -= size
            self._sink.on_placed(self._data_stream, size)
            self._end_data()
        elif self._rest:
            self._rest += self._view[:size]
            if not self._is_short(self._rest):
                self.go_on()
        else:
            self._read(bytes(self._view[:size]))

    def close(self) -> None:
        """Nothing more will be read: frees the buffers."""
        self._rest = bytearray()
        self._view = memoryview(bytearray())

    def go_on(self) -> None:
        """Reads on in what is left of the last batch."""
        data, self._rest = bytes(self._rest), bytearray()
        self._read(data)

    def _is_short(self, data: bytearray) -> bool:
        """Whether `data` cannot hold the next frame yet. Keeps slow senders from costing copies."""
        if not self.has_preface:
            return len(data) < len(PREFACE)
        if self._data_left:
            return False
        if len(data) < HEAD_BYTES:
            return True
        upper, lower, kind, flags, _ = unpack_head(data)
        return len(data) < HEAD_BYTES + held_bytes(upper << 8 | lower, kind, flags)

    def _read(self, data: bytes) -> None:
        position, end = 0, len(data)
        if not self.has_preface:
            if not PREFACE.startswith(data[: len(PREFACE)]):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "not HTTP/2")
            if end < len(PREFACE):
                self._rest += data
                return
            self.has_preface = True
            self._on_preface()
            position = len(PREFACE)
        for _ in range(BATCH):
            if position >= end:
                return
            taken = self._read_one(data, position, end)
            if taken == 0:
                break
            position += taken
        self._rest += data[position:]

    def _read_one(self, data: bytes, position: int, end: int) -> int:
        """Takes the frame, or the part of a DATA payload, at `position`; its size, 0: cut off."""
        if self._data_left:
            part = data[position : position + self._data_left]
            self._data_left -= len(part)
            self._sink.on_data(self._data_stream, part)
            self._end_data()
            return len(part)
        if end - position < HEAD_BYTES:
            return 0
        upper, lower, kind, flags, stream_id = unpack_head(data, position)
        size: int = upper << 8 | lower
        if end - position < HEAD_BYTES + held_bytes(size, kind, flags):
            return 0
        stream_id &= 0x7FFFFFFF
        if size > (MAX_OTHER_BYTES if kind else MAX_DATA_BYTES):
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
        start = position + HEAD_BYTES
        stop = start + size
        if stop > end:  # DATA without padding: `held_bytes` lets nothing else come here
            self._data_stream, self._data_flags, self._data_left = stream_id, flags, size
            self._sink.on_data_head(stream_id, size)
            return HEAD_BYTES
        self._on_frame(kind, flags, stream_id, data[start:stop])
        return HEAD_BYTES + size

    def _end_data(self) -> None:
        if self._data_left == 0:
            is_last = bool(self._data_flags & END_STREAM)
            self._sink.on_data_end(self._data_stream, is_last=is_last)
