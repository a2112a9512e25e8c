"""One HTTP/2 connection: its socket, its frames, its life and end. Source: RFC 9113."""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from trivet.server.grpc.http2 import frames
from trivet.server.grpc.http2.calls import CONNECTION_WINDOW, STREAM_WINDOW, Calls
from trivet.server.grpc.http2.flood import FloodGuard
from trivet.server.grpc.http2.frame_reader import MAX_DATA_BYTES, FrameReader
from trivet.server.grpc.http2.frames import (
    ACK,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    MAX_WINDOW,
    ConnectionFault,
    ErrorCode,
    Kind,
    Setting,
    StreamFault,
)
from trivet.server.grpc.http2.heads import MAX_METADATA_BYTES
from trivet.server.grpc.http2.options import Http2Options
from trivet.server.grpc.http2.outbox import Outbox
from trivet.server.grpc.http2.pings import Pings
from trivet.server.grpc.http2.timers import Timers
from trivet.server.grpc.transport import Code, Rows

log = logging.getLogger(__name__)
GOODBYE_S = 1.0
"""How long a client has to take our last words, or to tell of calls on their way."""
FIRST_PROBE_S, LAST_PROBE_S = 0.02, 1.0
"""Pauses between the questions whether a client that sends no more is still there."""
MAX_FRAME_BYTES_LIMIT = 2**24 - 1
NOT_HTTP2 = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This port speaks gRPC (HTTP/2). REST requests go to the HTTP port.\n"
)
_DRAIN_PING = b"trivet\0d"
_KEEPALIVE_PING = b"trivet\0k"

FrameHandler = Callable[[int, int, bytes], None]
"""Takes flags, stream id and payload."""


class Connection(asyncio.BufferedProtocol):
    """The server's side of one connection. Owned by the event loop."""

    def __init__(
        self,
        rows: Rows,
        options: Http2Options,
        on_made: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
    ) -> None:
        self._rows = rows
        self._options = options
        self._on_made = on_made
        self._on_lost = on_lost
        self._is_going_away = False
        self._num_pings_out = 0

    # -- asyncio -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._guard = FloodGuard()
        self._pings = Pings(self._options)
        self._outbox = Outbox(
            self._transport, self._guard, lambda call: self._calls.on_answered(call)
        )
        self._calls = Calls(
            self._rows, self._options, self._outbox, self._guard, self._close_when_done
        )
        self._reader = FrameReader(self._on_preface, self._on_frame, self._calls)
        self._timers = Timers(self._options, self)
        self._handlers = self._frame_handlers()
        self._on_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self._timers.heard()
        self._handle(self._reader.on_received, nbytes)

    def eof_received(self) -> bool:
        """The client sends no more: it may have left, or wait for its answers with one half closed.

        Both look alike until something is sent, so PINGs ask: a socket that is gone answers the
        first with a reset, at which the second fails. TLS knows no such half.
        """
        if not self._calls or self._transport.get_extra_info("sslcontext") is not None:
            return False
        self._calls.takes_new = False
        self._probe(FIRST_PROBE_S)
        return True

    def _probe(self, delay_s: float) -> None:
        if self._calls and not self._transport.is_closing():
            self._outbox.control(frames.frame(Kind.PING, 0, 0, _KEEPALIVE_PING))
            later_s = min(2 * delay_s, LAST_PROBE_S)
            asyncio.get_running_loop().call_later(delay_s, self._probe, later_s)

    def pause_writing(self) -> None:
        # A client that does not read is not read either: what it asks would only pile up.
        self._outbox.pause()
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._outbox.resume()
        if not self._outbox.is_paused and not self._transport.is_closing():
            self._transport.resume_reading()
            if self._reader.has_backlog:
                asyncio.get_running_loop().call_soon(self._go_on)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._timers.cancel()
        self._calls.abort()
        # Our parts refer to each other: what is large must not wait for the garbage collector.
        self._outbox.close()
        self._reader.close()
        self._handlers = {}
        self._on_lost(self)

    # -- life ----------------------------------------------------------------------------------

    def go_away(self) -> None:
        """Takes no new calls, after those that are already on their way; then closes."""
        if not self._is_going_away:
            self._is_going_away = True
            self._outbox.control(frames.goaway(MAX_WINDOW, ErrorCode.NO_ERROR))
            self._outbox.control(frames.frame(Kind.PING, 0, 0, _DRAIN_PING))
            # For a client that is silent nothing is on its way.
            asyncio.get_running_loop().call_later(GOODBYE_S, self._take_no_calls)

    def refuse(self, text: str) -> None:
        """Says why and closes, before anything was read."""
        self._close(ErrorCode.ENHANCE_YOUR_CALM, text)

    def end(self, text: str) -> None:
        """Fails all calls and closes."""
        self._calls.stop(Code.UNAVAILABLE, text)
        self._close(ErrorCode.NO_ERROR, "")

    def abort(self) -> None:
        """Closes at once: the client does not answer."""
        self._transport.abort()

    def ping(self) -> bool:
        """Asks whether the client is there; False: not this time."""
        if not self._pings.may_send(self._guard.num_moved, has_calls=bool(self._calls)):
            return False
        self._num_pings_out += 1
        self._outbox.control(frames.frame(Kind.PING, 0, 0, _KEEPALIVE_PING))
        return True

    def _take_no_calls(self) -> None:
        if self._calls.takes_new and not self._transport.is_closing():
            self._calls.takes_new = False
            self._outbox.control(frames.goaway(self._calls.last_id, ErrorCode.NO_ERROR))
            self._close_when_done()

    def _close(self, code: ErrorCode, text: str) -> None:
        self._outbox.control(frames.goaway(self._calls.last_id, code, text))
        self._outbox.flush()
        self._calls.abort()
        self._transport.close()
        # What the client does not read must not keep the connection.
        asyncio.get_running_loop().call_later(GOODBYE_S, self._transport.abort)

    def _close_when_done(self) -> None:
        if not self._calls.takes_new and not self._calls:
            self._outbox.flush()
            self._transport.close()

    # -- reading -------------------------------------------------------------------------------

    def _handle(self, read: Callable[..., None], *arguments: int) -> None:
        self._outbox.hold()
        try:
            read(*arguments)
        except ConnectionFault as fault:
            self._on_fault(fault)
        except Exception:
            # The door of the transport: a bug here must cost one connection, not the server.
            log.exception("a gRPC connection failed")
            self._close(ErrorCode.INTERNAL_ERROR, "")
        self._outbox.flush()
        if self._outbox.is_paused:
            return
        if self._reader.has_backlog and not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self._transport.is_closing() and not self._outbox.is_paused:
            self._transport.resume_reading()
            self._handle(self._reader.go_on)

    def _on_fault(self, fault: ConnectionFault) -> None:
        log.info("closing a gRPC connection: %s (%s)", fault.text, fault.code.name)
        if self._reader.has_preface:
            self._close(fault.code, fault.text)
        else:
            self._transport.write(NOT_HTTP2)
            self._transport.close()

    def _on_preface(self) -> None:
        announced = {
            Setting.MAX_CONCURRENT_STREAMS: self._options.max_concurrent_streams,
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_FRAME_SIZE: MAX_DATA_BYTES,
            Setting.MAX_HEADER_LIST_SIZE: MAX_METADATA_BYTES,
        }
        self._outbox.control(frames.settings(announced))
        self._outbox.control(frames.window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW))

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind != Kind.CONTINUATION:
            self._calls.require_no_open_headers()
        handler = self._handlers.get(kind)
        if handler is None:
            self._guard.idle()
            return
        try:
            handler(flags, stream_id, payload)
        except StreamFault as fault:
            self._calls.reset(fault.stream_id, fault.code)

    def _frame_handlers(self) -> dict[int, FrameHandler]:
        return {
            Kind.DATA: self._calls.on_whole_data,
            Kind.HEADERS: self._calls.on_headers,
            Kind.PRIORITY: self._on_priority,
            Kind.RST_STREAM: self._calls.on_rst_stream,
            Kind.SETTINGS: self._on_settings,
            Kind.PUSH_PROMISE: self._on_push_promise,
            Kind.PING: self._on_ping,
            Kind.GOAWAY: self._on_goaway,
            Kind.WINDOW_UPDATE: self._on_window_update,
            Kind.CONTINUATION: self._calls.on_continuation,
        }

    # -- frames of the connection --------------------------------------------------------------

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._guard.idle()
        _require_connection(stream_id, "SETTINGS")
        if flags & ACK:
            frames.require_size(payload, 0, "SETTINGS with ACK")
            return
        for key, value in frames.read_settings(payload):
            self._set(key, value)
        self._outbox.control(frames.frame(Kind.SETTINGS, ACK, 0))
        # Not before the ACK: until it comes, the client counts by its old window.
        self._outbox.pump()
        self._timers.greeted()

    def _set(self, key: int, value: int) -> None:
        if key == Setting.INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                text = f"INITIAL_WINDOW_SIZE of {value}"
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, text)
            self._calls.shift_windows(value - self._outbox.initial_window)
            self._outbox.initial_window = value
        elif key == Setting.MAX_FRAME_SIZE:
            if not DEFAULT_FRAME_BYTES <= value <= MAX_FRAME_BYTES_LIMIT:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")
            self._outbox.max_frame_bytes = min(value, MAX_DATA_BYTES)
        elif key == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        _require_connection(stream_id, "PING")
        frames.require_size(payload, 8, "PING")
        if not flags & ACK:
            self._guard.idle()
            self._pings.came(asyncio.get_running_loop().time(), self._guard.num_moved)
            self._outbox.control(frames.frame(Kind.PING, ACK, 0, payload))
        elif payload == _KEEPALIVE_PING and self._num_pings_out:
            self._num_pings_out -= 1
        elif payload == _DRAIN_PING and self._is_going_away:
            # What was on its way when we said goodbye has arrived by now.
            self._take_no_calls()
        else:
            self._guard.idle()

    def _on_goaway(self, _: int, stream_id: int, payload: bytes) -> None:
        _require_connection(stream_id, "GOAWAY")
        if len(payload) < frames.GOAWAY_BYTES:
            text = f"GOAWAY of {len(payload)} bytes; it has at least {frames.GOAWAY_BYTES}"
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, text)
        self._calls.takes_new = False
        self._close_when_done()

    def _on_window_update(self, _: int, stream_id: int, payload: bytes) -> None:
        frames.require_size(payload, 4, "WINDOW_UPDATE")
        self._guard.idle()
        increment = int.from_bytes(payload, "big") & MAX_WINDOW
        if stream_id:
            self._calls.on_window_update(stream_id, increment)
        elif increment:
            self._outbox.widen(increment)
        else:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")

    def _on_priority(self, _: int, stream_id: int, payload: bytes) -> None:
        self._guard.idle()
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        frames.require_size(payload, 5, "PRIORITY")

    def _on_push_promise(self, _: int, __: int, ___: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")


def _require_connection(stream_id: int, what: str) -> None:
    if stream_id:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on stream {stream_id}")
