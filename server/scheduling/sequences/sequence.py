"""One sequence of requests, from its START to its end."""

from collections import deque
from dataclasses import dataclass, field

from trivet.backends.api import ResponseSender, Tensor
from trivet.server.scheduling.ticket import Ticket

CorrelationId = int | str


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """A place for one sequence on one instance. Ordered so that instances fill up evenly."""

    number: int
    """Position in the instance's batch, where the strategy has fixed positions."""
    instance: int


@dataclass(slots=True, eq=False)
class Sequence:
    """Owned by the event loop. Compared by identity: an id may be used again after its end."""

    id: CorrelationId
    seen_ns: int
    """When it last had a request in progress."""
    slot: Slot | None = None
    """None while it waits for one in the backlog, and after its end."""
    waiting: "deque[SequenceTicket]" = field(default_factory=deque)
    """Requests that have not been started, in the order of arrival."""
    is_running: bool = False
    is_over: bool = False
    """Its END has been started, or it was cut: it has no slot any more."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """Implicit state by input name; empty before the first answer."""

    @property
    def is_busy(self) -> bool:
        """Whether it is not idle: a request waits or runs."""
        return self.is_running or bool(self.waiting)


@dataclass(slots=True, eq=False)
class SequenceTicket(Ticket):
    """A request of a sequence."""

    is_start: bool = False
    """Whether the model is to see it as a first one."""
    is_end: bool = False
    sequence: Sequence | None = None
    """None for a placeholder in a batch."""
    sender: ResponseSender | None = None
    """Of a decoupled model's request, between two passes over it."""
