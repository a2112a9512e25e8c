"""Frames over a local stream socket, and the file descriptors that travel with them.

A frame is two little-endian uint32 (header bytes, payload bytes), a JSON header and a small binary
payload. Both ends belong to one parent and its child; nothing listens anywhere.
"""

import array
import socket
import struct
import threading
from collections import deque
from typing import Any

import orjson

from trivet.backends.api.value import value

MAX_HEADER_BYTES = 16 << 20
MAX_PAYLOAD_BYTES = 32 << 10
"""Up to here the copies through the socket cost less than the bookkeeping of shared memory."""

_LENGTHS = struct.Struct("<II")
_MAX_WHOLE_BYTES = 32 << 10
"""A local socket takes a write of so much whole or not at all, and so it takes less than half of
its buffer."""
_READ_BYTES = 64 << 10
_MAX_FDS_PER_READ = 16
_ANCILLARY_BYTES = socket.CMSG_SPACE(_MAX_FDS_PER_READ * array.array("i").itemsize)

Header = dict[str, Any]


class ChannelClosed(Exception):
    """The other end is gone, or what it sent is not a frame."""


@value
class Frame:
    """One message. `payload` is a view on bytes that nobody changes."""

    header: Header
    payload: memoryview


class Channel:
    """One end of a socket pair. Any thread may send, one thread at a time reads.

    Owns the socket, and received descriptors until `take_fd` hands them over.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._send_lock = threading.Lock()
        buffer_bytes = end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._max_whole_bytes = min(_MAX_WHOLE_BYTES, buffer_bytes // 2 - 64)
        self._pending = b""
        self._frames: deque[Frame] = deque()
        self._fds: deque[int] = deque()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, header: Header, payload: bytes | bytearray = b"", fd: int | None = None) -> None:
        """Sends one frame; raises ChannelClosed when the other end is gone."""
        text = orjson.dumps(header)
        if len(text) > MAX_HEADER_BYTES:
            raise ValueError(
                f"a message of {len(text)} bytes beside its tensors exceeds {MAX_HEADER_BYTES}, "
                "the limit between server and instance process: shorten ids and parameters"
            )
        data = b"".join((_LENGTHS.pack(len(text), len(payload)), text, payload))
        try:
            with self._send_lock:
                if fd is None:
                    self._socket.sendall(data)
                else:
                    sent = socket.send_fds(self._socket, [data], [fd])
                    self._socket.sendall(memoryview(data)[sent:])
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def try_send(self, header: Header, payload: bytes | bytearray = b"") -> bool:
        """Sends a short frame unless that would block; whether it did."""
        text = orjson.dumps(header)
        data = b"".join((_LENGTHS.pack(len(text), len(payload)), text, payload))
        if len(data) > self._max_whole_bytes or not self._send_lock.acquire(blocking=False):
            return False
        try:
            num_sent = self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        finally:
            self._send_lock.release()
        if num_sent < len(data):
            # Half a frame cannot be taken back.
            self.hang_up()
            raise ChannelClosed("a frame was cut")
        return True

    def receive(self) -> Frame:
        """The next frame. Raises ChannelClosed at the end, BlockingIOError at a time-out."""
        while not self._frames:
            self._read(0)
        return self._frames.popleft()

    def peek(self) -> Header | None:
        """The header of the next frame if that has arrived, without waiting. It is still to be
        received. Raises ChannelClosed at the end."""
        if not self._frames:
            try:
                self._read(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
        return self._frames[0].header if self._frames else None

    @property
    def is_long(self) -> bool:
        """Whether more of a frame has come than one read takes, and it is not whole."""
        return len(self._pending) >= _READ_BYTES

    def receive_available(self) -> list[Frame]:
        """The frames that have arrived, without waiting. Raises ChannelClosed at the end."""
        if not self._frames:
            try:
                self._read(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return []
        frames = list(self._frames)
        self._frames.clear()
        return frames

    def take_fd(self) -> int:
        """The oldest received descriptor, now the caller's to close."""
        if not self._fds:
            raise ChannelClosed("a frame announced a descriptor that did not come")
        return self._fds.popleft()

    def set_read_timeout(self, timeout_s: float) -> None:
        """Lets `receive` raise BlockingIOError after so long. In the kernel: no extra call."""
        seconds, fraction = divmod(timeout_s, 1)
        timeval = struct.pack("@ll", int(seconds), int(fraction * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)

    def hang_up(self) -> None:
        """Ends the conversation: a reader in another thread wakes up with ChannelClosed."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def close(self) -> None:
        self._socket.close()
        while self._fds:
            socket.close(self._fds.popleft())

    def _read(self, flags: int) -> None:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_READ_BYTES, _ANCILLARY_BYTES, flags)
        except BlockingIOError:
            raise
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._fds.extend(_descriptors(content))
        if not data:
            raise ChannelClosed("end of stream")
        self._split(self._pending + data if self._pending else data)

    def _split(self, data: bytes) -> None:
        position, end, view = 0, len(data), memoryview(data)
        while end - position >= _LENGTHS.size:
            num_header, num_payload = _LENGTHS.unpack_from(data, position)
            if num_header > MAX_HEADER_BYTES or num_payload > MAX_PAYLOAD_BYTES:
                raise ChannelClosed(f"a frame of {num_header} + {num_payload} bytes is too long")
            start = position + _LENGTHS.size
            stop = start + num_header + num_payload
            if stop > end:
                break
            header = _parse(view[start : start + num_header])
            self._frames.append(Frame(header, view[start + num_header : stop]))
            position = stop
        self._pending = data[position:]


def _parse(text: memoryview) -> Header:
    try:
        header: Header = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ChannelClosed(f"a frame's header is not JSON: {error}") from error
    return header


def _descriptors(content: bytes) -> "array.array[int]":
    descriptors = array.array("i")
    descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return descriptors
