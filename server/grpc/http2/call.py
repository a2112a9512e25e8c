"""One HTTP/2 stream as a `Call`: its messages in, its answer out, its one end."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from trivet.server.grpc.http2.messages import Assembler, BadMessageError, Packed, packed
from trivet.server.grpc.transport import Buffer, Code, MessageHandler, Stream, Unary
from trivet.server.protocol.inflate import Plain

log = logging.getLogger(__name__)
HIGH_WATER_BYTES = 1024 * 1024
NOTHING_TOLD: Mapping[str, str] = MappingProxyType({})
_BATCH = 256
"""Messages that waited are taken so many at a time."""
_TOO_LATE = Code.DEADLINE_EXCEEDED, "Deadline Exceeded"
INTERNAL_TEXT = "internal error; the server log has the details"


class CallOwner(Protocol):
    """A call's connection, as the call sees it."""

    def write(self, call: "Http2Call", pieces: list[Buffer], size: int) -> None:
        """One message of a call, prefixed."""

    def write_answer(self, call: "Http2Call", pieces: list[Buffer], size: int) -> None:
        """All of a call's answer: one message, prefixed, and the end."""

    def write_end(self, call: "Http2Call", code: Code, text: str) -> None:
        """The end of a call."""

    def widen_receive_window(self, call: "Http2Call") -> None:
        """Lets the client send more, once that is worth a frame."""


class Http2Call:
    """Owned by its connection. `queue` holds what the windows do not let out yet."""

    __slots__ = (
        "_deadline_timer", "_gzip_level", "_handler", "_is_ended", "_message",
        "_on_cancel", "_on_writable", "_owner", "_row", "_unpacking", "_waiting", "assembler",
        "deadline", "has_sent_head", "id", "is_behind", "is_half_closed", "metadata",
        "missing_bytes", "queue",
        "queued_bytes", "receive_window", "send_window", "told", "trailers",
    )  # fmt: skip

    def __init__(
        self,
        owner: CallOwner,
        stream_id: int,
        metadata: Mapping[str, str],
        assembler: Assembler,
        gzip_level: int,
    ) -> None:
        self._owner = owner
        self.id = stream_id
        self.metadata = metadata
        self.deadline: float | None = None
        self.assembler = assembler
        self.is_half_closed = False
        self.missing_bytes: int | None = None
        """Of DATA until what the client said is complete; None: it did not say."""
        self.receive_window = 0
        self.send_window = 0
        self.has_sent_head = False
        self.queue: deque[Buffer] = deque()
        self.queued_bytes = 0
        self.trailers: tuple[Code, str] | None = None
        """Set once the answer is complete but waits in the queue."""
        self.told = NOTHING_TOLD
        """Metadata that go with the trailers."""
        self._row: Unary | None = None
        self._handler: MessageHandler | None = None
        self._message: Buffer | None = None
        self._unpacking: asyncio.Future[Plain] | None = None
        """A large message, in a thread."""
        self._waiting: deque[Buffer | Packed] = deque()
        """What came behind it."""
        self.is_behind = False
        """Whether messages wait for one that is being unpacked: no more should come."""
        self._gzip_level = gzip_level
        self._is_ended = False
        self._on_cancel: list[Callable[[], None]] | None = None
        self._on_writable: Callable[[], None] | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None

    # -- the Call seam -------------------------------------------------------------------------

    @property
    def is_writable(self) -> bool:
        return self.queued_bytes < HIGH_WATER_BYTES

    def on_writable(self, callback: Callable[[], None]) -> None:
        self._on_writable = callback

    def on_cancel(self, callback: Callable[[], None]) -> None:
        if self._on_cancel is None:
            self._on_cancel = [callback]
        else:
            self._on_cancel.append(callback)

    def tell(self, metadata: Mapping[str, str]) -> None:
        self.told = metadata

    def send(self, message: Sequence[Buffer]) -> None:
        if not self._is_ended:
            self._owner.write(self, *self._prefixed(message))

    def answer(self, message: Sequence[Buffer]) -> None:
        if not self._is_ended:
            self._settle()
            self._owner.write_answer(self, *self._prefixed(message))

    def finish(self) -> None:
        self._end(Code.OK, "")

    def fail(self, code: Code, text: str) -> None:
        if self.deadline is not None and time.monotonic() >= self.deadline:
            # What fails since the time is up may be heard before the timer.
            code, text = _TOO_LATE
        self._end(code, text)

    def _end(self, code: Code, text: str) -> None:
        if not self._is_ended:
            self._settle()
            self._owner.write_end(self, code, text)

    def _prefixed(self, message: Sequence[Buffer]) -> tuple[list[Buffer], int]:
        """A message as the wire has it, and its bytes."""
        if self._gzip_level:
            pieces = packed(list(message), self._gzip_level)
            return pieces, sum(map(len, pieces))
        size = sum(map(len, message))
        return [size.to_bytes(5, "big"), *message], size + 5

    # -- from the connection -------------------------------------------------------------------

    @property
    def answers_gzip(self) -> bool:
        """Whether the messages of the answer are compressed."""
        return self._gzip_level > 0

    def begin(self, row: Unary | Stream, timeout_s: float | None) -> None:
        """The head has come."""
        if timeout_s is not None:
            self.deadline = time.monotonic() + timeout_s
            loop = asyncio.get_running_loop()
            self._deadline_timer = loop.call_later(timeout_s, self._expire)
            if timeout_s == 0:
                self._expire()
                return
        if isinstance(row, Unary):
            self._row = row
        else:
            self._guarded(self._open, row)

    def receive(self, data: bytes) -> None:
        """The payload of a DATA frame or a part of one."""
        if self._is_ended:
            return
        whole = self.assembler.whole(data)
        if whole is None or self.is_behind:
            self._take_all(self.assembler.feed(data))
        else:
            self._take(whole)

    def place(self) -> memoryview | None:
        """Where the rest of a large message goes; None: nowhere special."""
        return None if self._is_ended else self.assembler.place()

    def received(self, size: int) -> None:
        """`size` bytes have been put at `place()`."""
        if not self._is_ended:
            self._take_all(self.assembler.received(size))

    def half_close(self) -> None:
        """The client sends no more."""
        self.is_half_closed = True
        if self._is_ended:
            return
        if not self.assembler.is_between_messages:
            text = f"the client ended its stream after {self.assembler.missing()}"
            self.stop(Code.INTERNAL, text)
        elif not self.is_behind:
            self._on_half_close()

    def _on_half_close(self) -> None:
        if self._handler is not None:
            self._guarded(self._handler.on_half_close)
        elif self._row is not None:
            self._guarded(self._answer, self._row)

    def abort(self) -> None:
        """The client has cancelled or its connection is gone: nothing can be sent any more."""
        if not self._is_ended:
            self._settle()
            self._run_cancel_callbacks()

    def stop(self, code: Code, text: str) -> None:
        """Ends a call from the transport's side, and its work."""
        if not self._is_ended:
            self._settle()
            self._run_cancel_callbacks()
            self._owner.write_end(self, code, text)

    def caught_up(self) -> None:
        """The queue has room again."""
        callback, self._on_writable = self._on_writable, None
        if callback is not None and not self._is_ended:
            callback()

    # -- inside --------------------------------------------------------------------------------

    def _take_all(self, messages: Iterator[Buffer | Packed]) -> None:
        try:
            for message in messages:
                if self.is_behind:
                    self._waiting.append(message)
                else:
                    self._take_next(message)
                if self._is_ended:
                    return
        except BadMessageError as error:
            self.stop(error.code, error.text)

    def _take_next(self, message: Buffer | Packed) -> None:
        if not isinstance(message, Packed):
            self._take(message)
            return
        plain = message.begin()
        if plain is not None:
            self._take(plain)
            return
        self.is_behind = True
        loop = asyncio.get_running_loop()
        self._unpacking = loop.run_in_executor(None, message.finish)
        self._unpacking.add_done_callback(self._on_unpacked)

    def _on_unpacked(self, unpacked: asyncio.Future[Plain]) -> None:
        self._unpacking = None
        error = None if unpacked.cancelled() else unpacked.exception()
        if self._is_ended:
            self._waiting.clear()
        elif isinstance(error, BadMessageError):
            self.stop(error.code, error.text)
        else:
            self._guarded(lambda: self._take(unpacked.result()))
            self._catch_up()

    def _catch_up(self) -> None:
        """Takes what has waited, some at a time: a window holds a million empty messages."""
        for _ in range(_BATCH):
            if self._is_ended or self._unpacking is not None:
                return
            if not self._waiting:
                self._is_up_to_date()
                return
            self.is_behind = False
            self._take_all(iter((self._waiting.popleft(),)))
            self.is_behind = True
        asyncio.get_running_loop().call_soon(self._catch_up)

    def _is_up_to_date(self) -> None:
        self.is_behind = False
        if self.is_half_closed:
            self._on_half_close()
        else:
            self._owner.widen_receive_window(self)

    def _take(self, message: Buffer) -> None:
        if self._handler is not None:
            self._guarded(self._handler.on_message, message)
        elif self._message is None:
            self._message = message
        else:
            self.fail(Code.UNIMPLEMENTED, "the method takes one request message; a second came")

    def _open(self, row: Stream) -> None:
        self._handler = row.open(self)

    def _answer(self, row: Unary) -> None:
        message, self._message = self._message, None
        if message is None:
            self.fail(Code.UNIMPLEMENTED, "the method takes one request message; none came")
        else:
            row.handle(self, message)

    def _guarded(self, step: Callable[..., None], *arguments: object) -> None:
        """The door to the handlers: what one raises is a bug, told to the log alone."""
        try:
            step(*arguments)
        except Exception:
            log.exception("an RPC handler failed")
            self.stop(Code.INTERNAL, INTERNAL_TEXT)

    def _expire(self) -> None:
        self.stop(*_TOO_LATE)

    def _settle(self) -> None:
        self._is_ended = True
        self._message = None
        self._waiting.clear()
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()

    def _run_cancel_callbacks(self) -> None:
        callbacks, self._on_cancel = self._on_cancel, None
        for callback in callbacks or ():
            callback()
