"""Which requests go together where a batch costs its rows times the longest of them. Pure.

The oldest request always goes. Beside it go those that are nearest to it in length, as long as the
batch stays within a budget: short ones many at a time, long ones few, and hardly any padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from trivet.backends.api import CostsByLength
from trivet.protos.model_config_pb2 import ModelDynamicBatching
from trivet.server.scheduling.policy import RUN_ONE, Line, Run, RunThese, WaitUntil
from trivet.server.scheduling.ticket import Ticket

_MOST_LOOKED_AT = 256
"""Requests from the head of the queue: more would hardly be nearer, and looking takes time."""


@dataclass(frozen=True, slots=True)
class LengthPolicy:
    """By lengths that are written on the tickets."""

    budget: int
    max_batch_size: int
    max_delay_ns: int = 0

    @classmethod
    def of(
        cls, instance: CostsByLength, batching: ModelDynamicBatching, max_batch_size: int
    ) -> "LengthPolicy":
        """Of an instance, with the delay that its config allows."""
        delay_ns = batching.max_queue_delay_microseconds * 1000
        return cls(instance.length_budget, max_batch_size, delay_ns)

    def decide(self, tickets: Line, now_ns: int) -> Run | RunThese | WaitUntil:
        """See Policy."""
        if len(tickets) == 1 and not self.max_delay_ns:
            return RUN_ONE
        seen = list(islice(tickets, _MOST_LOOKED_AT))
        oldest = seen[0]
        joinable = [ticket for ticket in seen if ticket.join_key == oldest.join_key]
        # Other priorities only fill what is left.
        joinable.sort(
            key=lambda each: (each.level != oldest.level, abs(each.length - oldest.length))
        )
        chosen = self._within_budget(joinable)
        run_at_ns = min(ticket.arrived_ns for ticket in seen) + self.max_delay_ns
        size = sum(ticket.request.batch_size for ticket in chosen)
        can_grow = len(chosen) == len(tickets) and size < self.max_batch_size
        if can_grow and run_at_ns > now_ns:
            return WaitUntil(run_at_ns)
        return RunThese(chosen)

    def _within_budget(self, tickets: Sequence[Ticket]) -> Sequence[Ticket]:
        """The first of them that fit; at least one."""
        size, longest = 0, 0
        for count, ticket in enumerate(tickets):
            size += ticket.request.batch_size
            longest = max(longest, ticket.length)
            if count and (size * longest > self.budget or size > self.max_batch_size):
                return tickets[:count]
        return tickets
