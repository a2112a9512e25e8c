"""The requests that wait for one model version: priorities, size limits, time-outs. Pure.

Semantics of Triton's ModelQueuePolicy, with two differences: an allowed request time-out also
counts when the default is 0, and cancelled requests do not count against the size limit.
"""

from bisect import insort
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from trivet.backends.api import Cancelled, DeadlineExceeded, QueueFull, QueueTimeout
from trivet.protos.model_config_pb2 import ModelDynamicBatching, ModelQueuePolicy
from trivet.server.scheduling.ticket import Refused, Ticket, labelled


@dataclass(frozen=True, slots=True)
class LevelPolicy:
    """How one priority level queues."""

    max_size: int = 0
    """Requests; 0 is unlimited."""
    timeout_ns: int = 0
    """How long a request may wait; 0 is for ever."""
    delays_expired: bool = False
    """An expired request goes behind the others instead of being refused."""
    allows_override: bool = False
    """Whether a request's own `timeout` counts."""

    @classmethod
    def from_config(cls, policy: ModelQueuePolicy, default_max_size: int) -> "LevelPolicy":
        return cls(
            policy.max_queue_size or default_max_size,
            policy.default_timeout_microseconds * 1000,
            policy.timeout_action == ModelQueuePolicy.DELAY,
            policy.allow_timeout_override,
        )

    def expiry_ns(self, arrived_ns: int, timeout_us: int) -> int:
        """When a request that asks for `timeout_us` (0: nothing) expires; 0 is never."""
        timeout_ns = self.timeout_ns
        if timeout_us and self.allows_override and not 0 < timeout_ns <= timeout_us * 1000:
            timeout_ns = timeout_us * 1000
        return arrived_ns + timeout_ns if timeout_ns else 0


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """The levels of a model; level 0 is used where the model has no priorities. A config may have
    2^64 of them, so only those are listed that have a policy of their own."""

    own: dict[int, LevelPolicy]
    default_level: int = 0
    num_levels: int = 0
    """The levels from 1 to this one queue by `default` unless they have their own policy."""
    default: LevelPolicy = LevelPolicy()

    @classmethod
    def from_config(cls, batching: ModelDynamicBatching, default_max_size: int) -> "QueuePolicy":
        default = LevelPolicy.from_config(batching.default_queue_policy, default_max_size)
        if not batching.priority_levels:
            return cls({0: default})
        own = {
            level: LevelPolicy.from_config(policy, default_max_size)
            for level, policy in batching.priority_queue_policy.items()
        }
        return cls(own, batching.default_priority_level, batching.priority_levels, default)

    def level_of(self, priority: int) -> int:
        """The level for a request's `priority`: the default one for 0 and for unknown ones."""
        is_known = 0 < priority <= self.num_levels or priority in self.own
        return priority if is_known else self.default_level

    def policy_of(self, level: int) -> LevelPolicy:
        """How a level that `level_of` has given queues."""
        return self.own.get(level, self.default)


@dataclass(slots=True)
class _Level:
    number: int
    policy: LevelPolicy
    waiting: deque[Ticket] = field(default_factory=deque)
    delayed: deque[Ticket] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self.waiting) + len(self.delayed)


_MOST_KEPT_LEVELS = 64
"""Levels that are kept while nothing waits in them: requests may name any number of others."""


class RequestQueue:
    """Waiting tickets in the order they are served: by level, first in first out within one.

    Delayed (expired) tickets of a level come after all waiting ones of it. A level costs memory
    once a request has used it. Owned by the loop.
    """

    def __init__(self, policy: QueuePolicy) -> None:
        self._policy = policy
        self._usual = policy.level_of(0)
        """The level of requests that ask for none: nearly all."""
        self._levels: list[_Level] = []
        """In their order."""
        self._by_number: dict[int, _Level] = {}
        self.size = 0
        """How many wait: what `len` gives, for those who ask several times a request."""

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Ticket]:
        for level in self._levels:
            yield from level.waiting
            yield from level.delayed

    def push(self, ticket: Ticket) -> None:
        """Takes a ticket in, sets its level and expiry. Raises QueueFull."""
        request = ticket.request
        priority = request.priority
        number = self._policy.level_of(priority) if priority else self._usual
        ticket.level = number
        level = self._by_number.get(number)
        if level is None:
            level = self._open(number)
        policy = level.policy
        if policy.max_size and len(level) >= policy.max_size:
            raise QueueFull(labelled(request, "Exceeds maximum queue size"))
        if policy.timeout_ns or request.timeout_us:
            ticket.expires_ns = policy.expiry_ns(ticket.arrived_ns, request.timeout_us)
        level.waiting.append(ticket)
        self.size += 1

    def _open(self, number: int) -> _Level:
        if len(self._levels) >= _MOST_KEPT_LEVELS:
            self._levels = [level for level in self._levels if len(level)]
        level = _Level(number, self._policy.policy_of(number))
        insort(self._levels, level, key=lambda each: each.number)
        self._by_number = {each.number: each for each in self._levels}
        return level

    def pop(self, count: int) -> list[Ticket]:
        """Takes the first `count` tickets out."""
        levels = self._levels
        if len(levels) == 1 and count >= self.size and not levels[0].delayed:
            # The usual case: all there are.
            line = levels[0].waiting
            everything = list(line)
            line.clear()
            self.size = 0
            return everything
        taken: list[Ticket] = []
        for level in self._levels:
            for line in (level.waiting, level.delayed):
                while line and len(taken) < count:
                    taken.append(line.popleft())
        self.size -= len(taken)
        return taken

    def take(self, tickets: Collection[Ticket]) -> list[Ticket]:
        """Takes these out, in their order here. Costs what stands before the last of them."""
        wanted = set(tickets)
        taken: list[Ticket] = []
        for level in self._levels:
            for line in (level.waiting, level.delayed):
                passed: list[Ticket] = []
                while line and len(taken) < len(wanted):
                    ticket = line.popleft()
                    (taken if ticket in wanted else passed).append(ticket)
                line.extendleft(reversed(passed))
        self.size -= len(taken)
        return taken

    def sweep(self, now_ns: int) -> list[Refused]:
        """Takes out cancelled and expired tickets; moves those that their policy only delays."""
        refused: list[Refused] = []
        for level in self._levels:
            for line in (level.waiting, level.delayed):
                if any(_is_due(ticket, now_ns) for ticket in line):
                    kept = [t for t in line if not self._settle(t, level, now_ns, refused)]
                    line.clear()
                    line.extend(kept)
        self.size -= len(refused)
        return refused

    def _settle(self, ticket: Ticket, level: _Level, now_ns: int, refused: list[Refused]) -> bool:
        """Whether the ticket leaves its line: refused, or moved behind the others."""
        if not _is_due(ticket, now_ns):
            return False
        error = _reason(ticket, now_ns)
        if error is None and level.policy.delays_expired:
            ticket.expires_ns = 0
            level.delayed.append(ticket)
            return True
        expired = QueueTimeout(labelled(ticket.request, "Request timeout expired"))
        refused.append(Refused(ticket, error or expired))
        return True

    def next_expiry_ns(self) -> int:
        """When the next ticket is due; 0 when none has a limit."""
        return min((due for ticket in self if (due := due_ns(ticket))), default=0)


def due_ns(ticket: Ticket) -> int:
    """When a ticket has waited too long; 0: never."""
    deadline = ticket.request.deadline
    if deadline is None:
        return ticket.expires_ns
    deadline_ns = int(deadline * 1e9)
    return min(deadline_ns, ticket.expires_ns) if ticket.expires_ns else deadline_ns


def _is_due(ticket: Ticket, now_ns: int) -> bool:
    if ticket.request.cancel.cancelled:
        return True
    limit_ns = due_ns(ticket)
    return 0 < limit_ns <= now_ns


def _reason(ticket: Ticket, now_ns: int) -> Cancelled | DeadlineExceeded | None:
    request = ticket.request
    if request.cancel.cancelled:
        return Cancelled(labelled(request, "request was cancelled while it waited in the queue"))
    if request.deadline is not None and request.deadline * 1e9 <= now_ns:
        return DeadlineExceeded(
            labelled(request, "the deadline passed while the request waited in the queue")
        )
    return None
