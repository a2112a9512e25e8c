"""When to run which requests together. Pure: looks at the queue and the clock it is given.

An idle instance is never kept waiting unless the config asks for it with
`max_queue_delay_microseconds`: batches form by themselves while all instances are busy.
"""

from collections.abc import Collection, Iterable, Sized
from dataclasses import dataclass
from typing import Protocol

from trivet.protos.model_config_pb2 import ModelDynamicBatching
from trivet.server.scheduling.ticket import Ticket


class Waiting(Protocol):
    """The requests that wait, as a decision takes some of them out."""

    def pop(self, count: int) -> list[Ticket]:
        """The first so many."""

    def take(self, tickets: Collection[Ticket]) -> list[Ticket]:
        """These."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run the first `count` requests of the queue now, as one batch."""

    count: int

    def take_from(self, queue: Waiting) -> list[Ticket]:
        """Those requests."""
        return queue.pop(self.count)


@dataclass(frozen=True, slots=True)
class RunThese:
    """Run these requests of the queue now, as one batch, wherever they stand in it."""

    tickets: Collection[Ticket]

    def take_from(self, queue: Waiting) -> list[Ticket]:
        """Those requests."""
        return queue.take(self.tickets)


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Run nothing before this time unless another request comes."""

    time_ns: int


RUN_ONE = Run(1)


class Line(Sized, Iterable[Ticket], Protocol):
    """The requests that wait, in the order in which they are served."""


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """The dynamic batcher's rules, as Triton's ModelDynamicBatching gives them."""

    max_batch_size: int
    preferred_sizes: frozenset[int] = frozenset()
    max_delay_ns: int = 0

    @classmethod
    def from_config(cls, batching: ModelDynamicBatching, max_batch_size: int) -> "BatchPolicy":
        sizes = frozenset(batching.preferred_batch_size) or frozenset({max_batch_size})
        return cls(max_batch_size, sizes, batching.max_queue_delay_microseconds * 1000)

    def decide(self, tickets: Line, now_ns: int) -> Run | WaitUntil:
        """What to do with a non-empty queue while an instance is idle.

        Takes the longest run of joinable requests from the head that fits max_batch_size, cut to
        the largest preferred size that can be formed exactly. Where none can: without a delay it
        runs at once, with one when the oldest request has waited for it or when the batch can grow
        no further. Once the delay has passed, everything goes, preferred or not.
        """
        if len(tickets) == 1 and not self.max_delay_ns:
            return RUN_ONE
        size = count = preferred_count = 0
        oldest_ns = now_ns
        key: object = None
        is_closed = False
        for ticket in tickets:
            grown = size + ticket.request.batch_size
            if count and (grown > self.max_batch_size or ticket.join_key != key):
                is_closed = True
                break
            key = ticket.join_key
            size, count = grown, count + 1
            oldest_ns = min(oldest_ns, ticket.arrived_ns)
            if size in self.preferred_sizes:
                preferred_count = count
            if size >= self.max_batch_size:
                break
        run_at_ns = oldest_ns + self.max_delay_ns
        if preferred_count and (run_at_ns > now_ns or not self.max_delay_ns):
            return Run(preferred_count)
        if is_closed or size >= self.max_batch_size or run_at_ns <= now_ns:
            return Run(count)
        return WaitUntil(run_at_ns)


@dataclass(frozen=True, slots=True)
class OneByOne:
    """The default scheduler: each request runs alone, in the order of arrival."""

    def decide(self, tickets: Line, now_ns: int) -> Run | WaitUntil:  # noqa: ARG002
        """Always the first request alone."""
        return RUN_ONE


class Policy(Protocol):
    """Decides about a queue that is not empty, while an instance is idle."""

    def decide(self, tickets: Line, now_ns: int) -> Run | RunThese | WaitUntil:
        """Pure: looks at the queue and the clock that it is given."""
