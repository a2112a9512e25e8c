"""The seam between the RPC table and the wire: what a transport gives a call, and takes as rows.

Everything here happens on the event loop. The service (`service.py`) knows messages and the core; a
transport knows HTTP/2 and nothing of models, so that one can replace another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope

Buffer = bytes | bytearray | memoryview


class Code(IntEnum):
    """The gRPC status codes that we send."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Call(Protocol):
    """One RPC in progress. One of `finish`, `answer` and `fail` ends it; later calls do nothing."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The request's metadata in lower case; the last value of a repeated key."""

    @property
    def deadline(self) -> float | None:
        """When the client stops waiting, in seconds of `time.monotonic`. The transport itself ends
        an expired call with DEADLINE_EXCEEDED, after calling the `on_cancel` callback."""

    @property
    def is_writable(self) -> bool:
        """False while more than the transport's high-water mark waits to be taken by the peer."""

    def on_writable(self, callback: Callable[[], None]) -> None:
        """Calls `callback` once, when the call is writable again (never after its end)."""

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Calls `callback` once if the client cancels, disconnects or its deadline passes before
        the call has ended."""

    def tell(self, metadata: Mapping[str, str]) -> None:
        """What the client is told behind the answer, in the call's trailing metadata: ASCII, names
        in lower case. What was told before is told no more."""

    def send(self, message: Sequence[Buffer]) -> None:
        """Sends one response message, given in pieces that need not be joined. The pieces must not
        change until they are written. Never blocks: look at `is_writable`."""

    def finish(self) -> None:
        """Ends the call with status OK."""

    def answer(self, message: Sequence[Buffer]) -> None:
        """`send` and `finish` at once: the whole answer of a unary call."""

    def fail(self, code: Code, text: str) -> None:
        """Ends the call with an error status."""


class MessageHandler(Protocol):
    """The receiving side of one bidirectional stream."""

    def on_message(self, message: Buffer) -> None:
        """One request message."""

    def on_half_close(self) -> None:
        """The client will send no more."""


@dataclass(frozen=True, slots=True)
class Unary:
    """An RPC with one request message. `handle` ends it by `answer` or `fail`, now or later. An
    exception that leaves it is logged and ends the call with INTERNAL."""

    handle: Callable[[Call, Buffer], None]
    scope: Scope
    api: Api


@dataclass(frozen=True, slots=True)
class Stream:
    """A bidirectional RPC. `open` is called once per call, before any message."""

    open: Callable[[Call], MessageHandler]
    scope: Scope
    api: Api


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that may not be made."""

    code: Code
    text: str


class Gate(Protocol):
    """Looks at every call before its messages are read."""

    def admit(self, metadata: Mapping[str, str], row: Unary | Stream) -> Unary | Stream | Refused:
        """What handles the call: the row, perhaps in other hands. Never raises."""


Rows = Mapping[str, Unary | Stream]
"""The RPC table: full method path, "/package.Service/Method", to handler and who may call it."""


class Transport(Protocol):
    """A listening gRPC server."""

    async def start(self) -> int:
        """Binds and listens; returns the port. Raises OSError when the address is taken."""

    async def drain(self, timeout_s: float) -> None:
        """Takes no new call, lets calls in progress end for up to `timeout_s`, then closes."""
