"""The calls in progress on one connection: heads and DATA to them, their answers to the outbox."""

from collections import deque
from collections.abc import Callable

from trivet.server.grpc.http2 import frames
from trivet.server.grpc.http2.call import Http2Call
from trivet.server.grpc.http2.flood import FloodGuard
from trivet.server.grpc.http2.frames import (
    END_HEADERS,
    END_STREAM,
    MAX_WINDOW,
    PRIORITY,
    ConnectionFault,
    ErrorCode,
    Kind,
    StreamFault,
)
from trivet.server.grpc.http2.heads import (
    MAX_BLOCK_BYTES,
    Head,
    HeadDecoder,
    Refusal,
    failure_block,
)
from trivet.server.grpc.http2.messages import Assembler, is_known
from trivet.server.grpc.http2.options import Http2Options
from trivet.server.grpc.http2.outbox import Outbox
from trivet.server.grpc.transport import Buffer, Code, Gate, Refused, Rows, Stream, Unary

STREAM_WINDOW = 4 * 1024 * 1024
CONNECTION_WINDOW = 16 * 1024 * 1024
MAX_CUT_SHORT = 256
"""Streams of which DATA that was on its way is let pass (RFC 9113 section 5.1, "closed")."""


class Calls:
    """Owned by its connection, which reads the frames."""

    def __init__(
        self,
        rows: Rows,
        options: Http2Options,
        outbox: Outbox,
        guard: FloodGuard,
        on_idle: Callable[[], None],
    ) -> None:
        self._rows = rows
        self._options = options
        self._outbox = outbox
        self._guard = guard
        self._on_idle = on_idle
        self._heads = HeadDecoder()
        self._calls: dict[int, Http2Call] = {}
        self._continued: tuple[int, int, bytes] | None = None
        """Stream, flags and block so far of headers that go on in CONTINUATION frames."""
        self._receive_window = CONNECTION_WINDOW
        self._cut_short: deque[int] = deque(maxlen=MAX_CUT_SHORT)
        """Streams that ended on our side while their clients were sending."""
        self.last_id = 0
        """The last call that was taken."""
        self._last_seen_id = 0
        """The same or, while no calls are taken, a later one that was refused."""
        self.takes_new = True

    def __bool__(self) -> bool:
        """Whether any is in progress."""
        return bool(self._calls)

    def stop(self, code: Code, text: str) -> None:
        """Ends all with an error that the clients get."""
        for call in list(self._calls.values()):
            call.stop(code, text)

    def abort(self) -> None:
        """The connection is gone."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            self._outbox.drop(call)
            call.abort()

    # -- heads ---------------------------------------------------------------------------------

    def require_no_open_headers(self) -> None:
        """Raises ConnectionFault when a CONTINUATION must come first."""
        if self._continued is not None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "headers broken off by another frame")

    def on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        """A HEADERS frame."""
        block = frames.unpadded(flags, payload)
        if flags & PRIORITY:
            if len(block) < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS of a broken length")
            block = block[5:]
        if flags & END_HEADERS:
            self._on_block(stream_id, flags, block)
        else:
            self._continued = (stream_id, flags, block)

    def on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        """A CONTINUATION frame."""
        if self._continued is None or self._continued[0] != stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._guard.idle()
        _, first_flags, block = self._continued
        block += payload
        if len(block) > MAX_BLOCK_BYTES:
            text = f"more than {MAX_BLOCK_BYTES} bytes of headers"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, text)
        self._continued = (stream_id, first_flags, block)
        if flags & END_HEADERS:
            self._continued = None
            self._on_block(stream_id, first_flags, block)

    def _on_block(self, stream_id: int, flags: int, block: bytes) -> None:
        call = self._calls.get(stream_id)
        if call is not None:
            self._on_request_trailers(call, flags, block)
            return
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a call on stream {stream_id}")
        if stream_id <= self._last_seen_id:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream")
        head = self._heads.decode(block)
        self._last_seen_id = stream_id
        if not self.takes_new:
            self.reset(stream_id, ErrorCode.REFUSED_STREAM)
            return
        self.last_id = stream_id
        if len(self._calls) >= self._options.max_concurrent_streams:
            self.reset(stream_id, ErrorCode.REFUSED_STREAM)
        elif isinstance(head, Refusal):
            self._refuse(stream_id, head.block, flags)
        else:
            self._open(stream_id, head, flags)

    def _open(self, stream_id: int, head: Head, flags: int) -> None:
        row = self._rows.get(head.path)
        if row is None:
            text = f"unknown method '{head.path[:128]}'"
            self._refuse(stream_id, failure_block(Code.UNIMPLEMENTED, text), flags)
        elif not is_known(head.encoding):
            text = f"grpc-encoding '{head.encoding[:32]}'; known are gzip, deflate, identity"
            self._refuse(stream_id, failure_block(Code.UNIMPLEMENTED, text), flags)
        elif self._options.gate is None:
            self._begin(stream_id, head, row, flags)
        else:
            self._begin_admitted(self._options.gate, stream_id, head, row, flags)

    def _begin_admitted(
        self, gate: Gate, stream_id: int, head: Head, row: Unary | Stream, flags: int
    ) -> None:
        admitted = gate.admit(head.metadata, row)
        if isinstance(admitted, Refused):
            self._refuse(stream_id, failure_block(admitted.code, admitted.text), flags)
        else:
            self._begin(stream_id, head, admitted, flags)

    def _begin(self, stream_id: int, head: Head, row: Unary | Stream, flags: int) -> None:
        self._guard.moved()
        level = self._options.gzip_level if "gzip" in head.accepts else 0
        assembler = Assembler(head.encoding, self._options.max_message_bytes)
        call = Http2Call(self, stream_id, head.metadata, assembler, level)
        call.missing_bytes = head.content_length
        call.receive_window = STREAM_WINDOW
        call.send_window = self._outbox.initial_window
        self._calls[stream_id] = call
        call.begin(row, head.timeout_s)
        if flags & END_STREAM:
            self._half_close(call)

    def _half_close(self, call: Http2Call) -> None:
        """The client sends no more in this stream. With less than it said it is malformed."""
        if call.missing_bytes:
            self.reset(call.id, ErrorCode.PROTOCOL_ERROR)
        else:
            call.half_close()

    def _on_request_trailers(self, call: Http2Call, flags: int, block: bytes) -> None:
        self._heads.fields(block)
        if call.is_half_closed:
            raise StreamFault(call.id, ErrorCode.STREAM_CLOSED)
        if not flags & END_STREAM:
            raise StreamFault(call.id, ErrorCode.PROTOCOL_ERROR)
        self._half_close(call)

    def _refuse(self, stream_id: int, block: bytes, flags: int) -> None:
        """Answers what is no call by headers alone; an empty block: malformed."""
        if not block:
            self.reset(stream_id, ErrorCode.PROTOCOL_ERROR)
            return
        both = END_HEADERS | END_STREAM
        self._outbox.control(frames.frame(Kind.HEADERS, both, stream_id, block))
        if not flags & END_STREAM:
            self._cut_short.append(stream_id)
            self._outbox.control(frames.rst_stream(stream_id, ErrorCode.NO_ERROR))

    # -- DATA: see DataSink --------------------------------------------------------------------

    def on_data_head(self, stream_id: int, size: int) -> None:
        """A DATA frame begins: both windows are charged."""
        self.require_no_open_headers()
        if stream_id == 0 or stream_id > self._last_seen_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"DATA on idle stream {stream_id}")
        if size:
            self._guard.moved()
            self._charge(size)
        else:
            self._guard.idle()
        call = self._calls.get(stream_id)
        if call is None:
            if stream_id not in self._cut_short:
                self.reset(stream_id, ErrorCode.STREAM_CLOSED)
            return
        call.receive_window -= size
        if call.is_half_closed:
            self.reset(stream_id, ErrorCode.STREAM_CLOSED)
        elif call.receive_window < 0:
            self.reset(stream_id, ErrorCode.FLOW_CONTROL_ERROR)

    def _charge(self, size: int) -> None:
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond the window")
        if self._receive_window < CONNECTION_WINDOW // 2:
            taken = CONNECTION_WINDOW - self._receive_window
            self._outbox.control(frames.window_update(0, taken))
            self._receive_window = CONNECTION_WINDOW

    def on_data(self, stream_id: int, data: bytes) -> None:
        """The next part of the payload."""
        call = self._calls.get(stream_id)
        if call is not None and self._has_room(call, len(data)):
            call.receive(data)

    def _has_room(self, call: Http2Call, size: int) -> bool:
        """Counts DATA against the content-length, if there is one; more than it ends the stream."""
        if call.missing_bytes is None:
            return True
        call.missing_bytes -= size
        if call.missing_bytes < 0:
            self.reset(call.id, ErrorCode.PROTOCOL_ERROR)
        return call.missing_bytes >= 0

    def place(self, stream_id: int) -> memoryview | None:
        """Where the next part of a large message goes."""
        call = self._calls.get(stream_id)
        return None if call is None else call.place()

    def on_placed(self, stream_id: int, size: int) -> None:
        """So much of it has been put there."""
        call = self._calls.get(stream_id)
        if call is not None and self._has_room(call, size):
            call.received(size)

    def on_data_end(self, stream_id: int, *, is_last: bool) -> None:
        """A DATA frame ends."""
        call = self._calls.get(stream_id)
        if call is None:
            return
        if is_last:
            self._half_close(call)
        elif not call.is_behind:
            self.widen_receive_window(call)

    def widen_receive_window(self, call: Http2Call) -> None:
        """See CallOwner."""
        taken = STREAM_WINDOW - call.receive_window
        if taken > STREAM_WINDOW // 2:
            self._outbox.control(frames.window_update(call.id, taken))
            call.receive_window = STREAM_WINDOW

    def on_whole_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        """A DATA frame at once, perhaps with padding, which counts against the windows."""
        data = frames.unpadded(flags, payload)
        self.on_data_head(stream_id, len(payload))
        self.on_data(stream_id, data)
        self.on_data_end(stream_id, is_last=bool(flags & END_STREAM))

    # -- other frames of a stream --------------------------------------------------------------

    def on_rst_stream(self, _: int, stream_id: int, payload: bytes) -> None:
        """The client cancels a call."""
        frames.require_size(payload, 4, "RST_STREAM")
        if stream_id == 0 or stream_id > self._last_seen_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "RST_STREAM of an idle stream")
        call = self._calls.pop(stream_id, None)
        if call is None:
            self._guard.idle()
            return
        self._outbox.drop(call)
        call.abort()
        self._guard.cancelled()
        self._on_idle()

    def on_window_update(self, stream_id: int, increment: int) -> None:
        """The client can take more of a call's answer."""
        if stream_id > self._last_seen_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of an idle stream")
        call = self._calls.get(stream_id)
        if call is None:
            return
        if increment == 0:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR)
        self._outbox.widen_call(call, increment)

    def shift_windows(self, change: int) -> None:
        """The client has changed what each stream starts with."""
        for call in self._calls.values():
            call.send_window += change
            if call.send_window > MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window over 2^31-1")

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Ends a stream that broke the protocol, or is refused. Raises ConnectionFault for one too
        many: a client that makes us reset costs as much as one that resets."""
        call = self._calls.pop(stream_id, None)
        if call is not None:
            self._outbox.drop(call)
            call.abort()
        self._cut_short.append(stream_id)
        self._outbox.control(frames.rst_stream(stream_id, code))
        self._guard.cancelled()
        self._on_idle()

    # -- answers -------------------------------------------------------------------------------

    def write(self, call: Http2Call, pieces: list[Buffer], size: int) -> None:
        """See CallOwner."""
        self._guard.moved()
        self._outbox.message(call, pieces, size)

    def write_answer(self, call: Http2Call, pieces: list[Buffer], size: int) -> None:
        """All of a call's answer: one message, prefixed, and the end."""
        self._guard.moved()
        self._outbox.answer(call, pieces, size)

    def write_end(self, call: Http2Call, code: Code, text: str) -> None:
        """See CallOwner."""
        self._outbox.end(call, code, text)

    def on_answered(self, call: Http2Call) -> None:
        """The call's last frame has been written."""
        if self._calls.pop(call.id, None) is None:
            return
        self._guard.ended()
        if not call.is_half_closed:
            self._cut_short.append(call.id)
            self._outbox.control(frames.rst_stream(call.id, ErrorCode.NO_ERROR))
        if not self.takes_new:
            self._on_idle()
