"""What one connection sends: frames gathered per tick of the loop, within both flow windows."""

import asyncio
from collections import deque
from collections.abc import Callable

from trivet.server.grpc.http2.call import HIGH_WATER_BYTES, Http2Call
from trivet.server.grpc.http2.flood import FloodGuard
from trivet.server.grpc.http2.frames import (
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    MAX_WINDOW,
    ConnectionFault,
    ErrorCode,
    Kind,
    StreamFault,
    frame_head,
)
from trivet.server.grpc.http2.heads import (
    ANSWER_BLOCK,
    GZIP_ANSWER_BLOCK,
    OK_TRAILERS,
    answer_end,
    answer_head,
    failure_block,
    metadata_block,
    trailers_block,
)
from trivet.server.grpc.transport import Buffer, Code

JOIN_BYTES = 64 * 1024
"""Writes up to this size are joined into one; larger pieces are never copied."""


class Outbox:
    """Owned by its connection; on the event loop."""

    def __init__(
        self,
        transport: asyncio.Transport,
        guard: FloodGuard,
        on_sent: Callable[[Http2Call], None],
    ) -> None:
        self._transport = transport
        self._guard = guard
        self._on_sent = on_sent
        self._loop = asyncio.get_running_loop()
        self._pieces: list[Buffer] = []
        self._num_bytes = 0
        self._is_flush_due = False
        self._is_paused = False
        self._waiting: deque[Http2Call] = deque()
        self._window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.max_frame_bytes = DEFAULT_FRAME_BYTES

    # -- frames out ----------------------------------------------------------------------------

    def control(self, frame: bytes) -> None:
        """A frame that no window holds back."""
        self._add(frame)

    def message(self, call: Http2Call, pieces: list[Buffer], size: int) -> None:
        """One message of a call, with its prefix."""
        if not call.has_sent_head:
            call.has_sent_head = True
            block = GZIP_ANSWER_BLOCK if call.answers_gzip else ANSWER_BLOCK
            self._add(_headers(call.id, block, END_HEADERS))
        room = min(self._window, call.send_window, self.max_frame_bytes)
        if size <= room and not call.queue and not self._is_paused:
            self._window -= size
            call.send_window -= size
            self._add(frame_head(size, 0, 0, call.id))
            self._pieces += pieces
            self._num_bytes += size
            return
        if not call.queue:
            self._waiting.append(call)
        call.queue.extend(piece for piece in pieces if len(piece))
        call.queued_bytes += size
        self.pump()

    def answer(self, call: Http2Call, pieces: list[Buffer], size: int) -> None:
        """The one message of a call, with its prefix, and the end of the call, which succeeded."""
        if (
            call.has_sent_head
            or call.answers_gzip
            or call.told
            or self._is_paused
            or size > min(self._window, call.send_window, self.max_frame_bytes)
        ):
            self.message(call, pieces, size)
            self.end(call, Code.OK, "")
            return
        call.has_sent_head = True
        self._window -= size
        end = answer_end(call.id)
        self._add(answer_head(call.id, size))
        self._pieces += (*pieces, end)
        self._num_bytes += size + len(end)
        self._on_sent(call)

    def end(self, call: Http2Call, code: Code, text: str) -> None:
        """The end of a call, behind what is queued for it."""
        if call.queue and code is Code.OK:
            call.trailers = (code, text)
            return
        self.drop(call)
        self._end(call, code, text)

    def drop(self, call: Http2Call) -> None:
        """Forgets what is queued for a call."""
        if call.queue:
            call.queue.clear()
            call.queued_bytes = 0
            self._waiting.remove(call)

    def _end(self, call: Http2Call, code: Code, text: str) -> None:
        if not call.has_sent_head:
            call.has_sent_head = True
            block = ANSWER_BLOCK + OK_TRAILERS if code is Code.OK else failure_block(code, text)
        else:
            block = trailers_block(code, text)
        if call.told:
            block += metadata_block(call.told)
        self._add(_headers(call.id, block, END_HEADERS | END_STREAM))
        self._on_sent(call)

    # -- windows -------------------------------------------------------------------------------

    def widen(self, increment: int) -> None:
        """The connection's window grows. Raises ConnectionFault when over its limit."""
        self._window += increment
        if self._window > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "connection window over 2^31-1")
        self.pump()

    def widen_call(self, call: Http2Call, increment: int) -> None:
        """A call's window grows. Raises StreamFault when over its limit."""
        call.send_window += increment
        if call.send_window > MAX_WINDOW:
            raise StreamFault(call.id, ErrorCode.FLOW_CONTROL_ERROR)
        self.pump()

    @property
    def is_paused(self) -> bool:
        """Whether the socket takes no more for now."""
        return self._is_paused

    def pause(self) -> None:
        """The socket takes no more."""
        self._is_paused = True

    def close(self) -> None:
        """The connection is gone, and what waited for it."""
        self._pieces, self._num_bytes = [], 0
        self._waiting.clear()

    def resume(self) -> None:
        """The socket takes more."""
        self._is_paused = False
        self.pump()

    def pump(self) -> None:
        """Sends what the windows allow, a frame of each call in turn."""
        blocked = 0
        while self._waiting and blocked < len(self._waiting):
            if self._window <= 0 or self._is_paused:
                return
            call = self._waiting[0]
            if call.send_window <= 0:
                blocked += 1
            else:
                blocked = 0
                self._send_frame(call)
            if call.queue:
                self._waiting.rotate(-1)
            else:
                self._waiting.popleft()
                self._queue_is_empty(call)
            if self._num_bytes > HIGH_WATER_BYTES:
                self.flush()

    def _queue_is_empty(self, call: Http2Call) -> None:
        if call.trailers is not None:
            self._end(call, *call.trailers)
        else:
            call.caught_up()

    def _send_frame(self, call: Http2Call) -> None:
        self._guard.moved()
        room = min(self._window, call.send_window, self.max_frame_bytes, call.queued_bytes)
        self._window -= room
        call.send_window -= room
        call.queued_bytes -= room
        self._add(frame_head(room, Kind.DATA, 0, call.id))
        self._num_bytes += room
        queue = call.queue
        while room:
            piece = queue.popleft()
            if len(piece) > room:
                view = memoryview(piece)
                queue.appendleft(view[room:])
                piece = view[:room]
            self._pieces.append(piece)
            room -= len(piece)

    # -- to the socket -------------------------------------------------------------------------

    def _add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._num_bytes += len(piece)
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self.flush)

    def hold(self) -> None:
        """Until the next `flush`, which must come, frames only gather."""
        self._is_flush_due = True

    def flush(self) -> None:
        """Hands what has gathered to the socket."""
        self._is_flush_due = False
        pieces, self._pieces = self._pieces, []
        size, self._num_bytes = self._num_bytes, 0
        if not pieces or self._transport.is_closing():
            return
        if size <= JOIN_BYTES:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)


def _headers(stream_id: int, block: bytes, flags: int) -> bytes:
    # Our blocks are below the smallest frame size a peer can ask for: texts are cut at 4096.
    return frame_head(len(block), Kind.HEADERS, flags, stream_id) + block
