"""How a request came: set by the front room while it handles one, read where its trace begins."""

import time
from contextvars import ContextVar

from trivet.server.tracing.context import TraceContext
from trivet.server.tracing.live import Part
from trivet.server.tracing.record import Stamp


class Arrival:
    """A request in a front room, and its trace once it has one. Owned by the event loop."""

    __slots__ = ("context", "part", "protocol", "received_ns", "sends_later")

    def __init__(
        self, protocol: str, traceparent: str | None = None, *, sends_later: bool = False
    ) -> None:
        """`protocol`: HTTP or GRPC. With `sends_later` the front room calls `sending` and `sent`;
        else the answer is sent when the request's sink returns."""
        self.protocol = protocol
        self.context = TraceContext.parse(traceparent)
        self.received_ns = time.monotonic_ns()
        self.sends_later = sends_later
        self.part: Part | None = None

    def sending(self) -> None:
        """The answer is complete and about to be written."""
        if self.part is not None:
            self.part.span.stamps.append(Stamp(f"{self.protocol}_SEND_START", time.monotonic_ns()))

    def sent(self) -> None:
        """The answer is written, or never will be. A second call does nothing."""
        part, self.part = self.part, None
        if part is not None:
            part.span.stamps.append(Stamp(f"{self.protocol}_SEND_END", time.monotonic_ns()))
            part.end(part.span.error)


current_arrival: ContextVar[Arrival | None] = ContextVar("current_arrival", default=None)
"""Set for each request while anything is traced."""
