"""The requests of a model's sequences that wait: for their turn, for a slot, and not for ever.

Owned by the event loop. Every way in which a sequence can end goes through `end` or `cut`.
"""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from trivet.backends.api import (
    Cancelled,
    DeadlineExceeded,
    InstanceDied,
    QueueFull,
    QueueTimeout,
    ServingError,
    Unavailable,
)
from trivet.server.scheduling.alarm import Alarm
from trivet.server.scheduling.answers import Answers
from trivet.server.scheduling.expiry import Expiry
from trivet.server.scheduling.queue import due_ns
from trivet.server.scheduling.sequences.plan import SequencePlan
from trivet.server.scheduling.sequences.sequence import Sequence, SequenceTicket
from trivet.server.scheduling.sequences.table import SequenceTable
from trivet.server.scheduling.statistics import ModelStatistics, SequenceCounts, SequenceEnd
from trivet.server.scheduling.ticket import labelled

log = logging.getLogger(__name__)
_LEAST_IDLE_NS = 1_000_000

Reason = Callable[[SequenceTicket], ServingError]
"""Why a waiting request of a sequence that was cut fails."""


class SlotScheduler(Protocol):
    """Decides when the sequences that have slots run."""

    def ready(self, sequence: Sequence) -> None:
        """It has a slot, its first request may be taken."""

    def gone(self, sequence: Sequence) -> None:
        """It is losing its slot."""

    def can_run(self, instance: int) -> bool:
        """Whether an instance can compute now."""


class SequenceQueue:
    """The sequences of one executor and their waiting requests."""

    def __init__(
        self,
        plan: SequencePlan,
        num_instances: int,
        max_waiting: int,
        statistics: ModelStatistics,
        answers: Answers,
        scheduler: SlotScheduler,
    ) -> None:
        """At most `max_waiting` requests wait, beyond one per slot; 0: any number."""
        self._plan = plan
        self._table = SequenceTable(
            num_instances, plan.slots_per_instance, plan.idle_ns, scheduler.can_run
        )
        self._max_waiting = max_waiting and max_waiting + self._table.num_slots
        self._statistics = statistics
        self._counts = statistics.sequences = statistics.sequences or SequenceCounts()
        self._answers = answers
        self._scheduler = scheduler
        self._own_ids = itertools.count(1)
        self._num_waiting = 0
        loop = asyncio.get_running_loop()
        self._idle = Alarm(loop, self._on_idle)
        self._expiry = Expiry(loop, self._expire)
        self._no_sequence = asyncio.Event()
        self._no_sequence.set()
        self.stopping = ""
        """Why no new sequence begins; empty while they may."""

    def __len__(self) -> int:
        """Requests that wait."""
        return self._num_waiting

    @property
    def num_sequences(self) -> int:
        """That are not over."""
        return len(self._table)

    def holds(self, sequence_id: int | str) -> bool:
        """Whether a request of this id continues a sequence."""
        return self._table.find(sequence_id) is not None

    async def no_sequence(self) -> None:
        """Returns when all sequences are over."""
        await self._no_sequence.wait()

    # -- in and out ----------------------------------------------------------------------------

    def push(self, ticket: SequenceTicket) -> None:
        """Puts a new request at the end of its sequence's line. Raises a ServingError."""
        sequence, request = self._sequence_for(ticket), ticket.request
        sequence.waiting.append(ticket)
        self._entered(sequence, ticket)
        if len(sequence.waiting) == 1:
            self._offer(sequence)
        if sequence.slot is None and request.timeout_us:
            ticket.expires_ns = ticket.arrived_ns + request.timeout_us * 1000
        if ticket.expires_ns or request.deadline is not None:
            self._expiry.watch(ticket)
        if not self._idle.is_set:
            self._arm_idle()
        request.cancel.on_cancel(partial(self._on_cancel, sequence))

    def push_again(self, sequence: Sequence, ticket: SequenceTicket) -> None:
        """Puts a request that has run back to the head of its sequence's line."""
        sequence.waiting.appendleft(ticket)
        self._entered(sequence, ticket)
        self._offer(sequence)

    def take(self, sequence: Sequence, now_ns: int) -> SequenceTicket:
        """Takes out the first request of a sequence, which runs from now on; an END ends it."""
        ticket = sequence.waiting.popleft()
        self._num_waiting -= 1
        self._statistics.pending -= 1
        ticket.started_ns = now_ns
        sequence.is_running = True
        if ticket.is_end:
            self.end(sequence, SequenceEnd.COMPLETED)
        return ticket

    def done(self, sequence: Sequence) -> None:
        """Its request does not run any more; the next one may."""
        sequence.is_running = False
        self._table.touch(sequence, time.monotonic_ns())
        self._offer(sequence)

    def _entered(self, sequence: Sequence, ticket: SequenceTicket) -> None:
        ticket.sequence = sequence
        self._num_waiting += 1
        self._statistics.pending += 1
        self._table.touch(sequence, ticket.arrived_ns)

    def _offer(self, sequence: Sequence) -> None:
        if sequence.slot is not None and sequence.waiting and not sequence.is_running:
            self._scheduler.ready(sequence)

    def _sequence_for(self, ticket: SequenceTicket) -> Sequence:
        """The request's sequence, a new one for its START."""
        request = ticket.request
        self._plan.check(request)
        if self._max_waiting and self._num_waiting >= self._max_waiting:
            raise QueueFull("Exceeds maximum queue size")
        is_own = self._plan.is_iterative
        found = None if is_own else self._table.find(request.sequence_id)
        ticket.is_start = is_own or request.sequence_start
        ticket.is_end = request.sequence_end and not is_own
        if ticket.is_start and self.stopping:
            raise Unavailable(self.stopping)
        sequence = self._open(ticket) if found is None else found
        if found is not None and ticket.is_start:
            name = self._plan.model_name
            log.warning("model '%s': sequence %s starts again before its END", name, found.id)
        if ticket.is_end:
            self._table.forget_id(sequence)
        return sequence

    def _open(self, ticket: SequenceTicket) -> Sequence:
        request = ticket.request
        if not ticket.is_start:
            raise self._plan.refuse_unknown(request)
        self._no_sequence.clear()
        sequence_id = request.sequence_id or next(self._own_ids)
        findable = not self._plan.is_iterative
        sequence = self._table.open(sequence_id, ticket.arrived_ns, findable=findable)
        self._counts.num_open += 1
        self._counts.num_waiting += sequence.slot is None
        return sequence

    # -- ends ----------------------------------------------------------------------------------

    def end(self, sequence: Sequence, how: SequenceEnd) -> None:
        """Frees its slot, which may let one from the backlog begin. Its line must be empty, or
        emptied by the caller."""
        if sequence.is_over:
            return
        self._counts.num_open -= 1
        self._counts.ended[how] += 1
        if sequence.slot is not None:
            self._scheduler.gone(sequence)
        else:
            self._counts.num_waiting -= 1
        heir = self._table.close(sequence)
        if heir is not None:
            self._counts.num_waiting -= 1
            for ticket in heir.waiting:
                # The request parameter `timeout` is for the wait for a slot.
                ticket.expires_ns = 0
            self._offer(heir)
        if not len(self._table):
            self._no_sequence.set()

    def end_all(self) -> None:
        """Ends what has no requests left."""
        for sequence in list(self._table):
            self.end(sequence, SequenceEnd.UNLOADED)

    def cut(self, sequence: Sequence, reason: Reason, how: SequenceEnd = SequenceEnd.CUT) -> None:
        """Ends a sequence whose requests cannot all be computed: the rest would be wrong."""
        tickets, sequence.waiting = sequence.waiting, deque()
        self.end(sequence, how)
        self._num_waiting -= len(tickets)
        self._statistics.pending -= len(tickets)
        for ticket in tickets:
            self._answers.fail(ticket, reason(ticket))

    def lose(self, instance: int, error: InstanceDied) -> None:
        """The instance has died, and with it what it knew of its sequences."""
        lost = [each for each in self._table if each.slot and each.slot.instance == instance]
        for sequence in lost:
            reason = partial(_lost, error)
            self.cut(sequence, reason, SequenceEnd.LOST)

    def cut_all(self, reason: Unavailable, how: SequenceEnd) -> None:
        """None of them can be computed."""
        for sequence in list(self._table):
            self.cut(sequence, partial(_refused, reason), how)

    def close(self) -> None:
        """Cuts all."""
        self.cut_all(Unavailable(self.stopping), SequenceEnd.UNLOADED)
        self._idle.cancel()
        self._expiry.cancel()

    def _on_cancel(self, sequence: Sequence) -> None:
        if any(ticket.request.cancel.cancelled for ticket in sequence.waiting):
            self.cut(sequence, cancelled)

    # -- time ----------------------------------------------------------------------------------

    def _arm_idle(self) -> None:
        next_ns = self._table.next_idle_ns()
        if next_ns:
            self._idle.by(max(next_ns, time.monotonic_ns() + _LEAST_IDLE_NS))

    def _on_idle(self) -> None:
        for sequence in self._table.take_idle(time.monotonic_ns()):
            name = self._plan.model_name
            log.debug("model '%s': sequence %s was idle for too long", name, sequence.id)
            self.end(sequence, SequenceEnd.IDLE)
        self._arm_idle()

    def _expire(self, now_ns: int) -> int:
        waiting = [sequence for sequence in self._table if sequence.waiting]
        for sequence in waiting:
            if any(0 < due_ns(ticket) <= now_ns for ticket in sequence.waiting):
                self.cut(sequence, partial(_expired, now_ns))
        dues = (due_ns(ticket) for sequence in waiting for ticket in sequence.waiting)
        return min((due for due in dues if due), default=0)


def cancelled(ticket: SequenceTicket) -> Cancelled:
    """Why a waiting request fails when one of its sequence was cancelled."""
    request = ticket.request
    if request.cancel.cancelled:
        return Cancelled(labelled(request, "request was cancelled while it waited in the queue"))
    text = f"an earlier request of sequence {request.sequence_id} was cancelled, which ended it"
    return Cancelled(labelled(request, text))


def _lost(error: InstanceDied, ticket: SequenceTicket) -> InstanceDied:
    return InstanceDied(labelled(ticket.request, error.message))


def _refused(reason: Unavailable, ticket: SequenceTicket) -> Unavailable:
    text = labelled(ticket.request, reason.message)
    return type(reason)(text, retry_after_s=reason.retry_after_s)


def _expired(now_ns: int, ticket: SequenceTicket) -> ServingError:
    request = ticket.request
    if request.deadline is not None and request.deadline * 1e9 <= now_ns:
        text = "the deadline passed while the request waited in the queue"
        return DeadlineExceeded(labelled(request, text))
    if 0 < ticket.expires_ns <= now_ns:
        text = "timeout of the corresponding sequence has been expired"
        return QueueTimeout(labelled(request, text))
    text = f"an earlier request of sequence {request.sequence_id} came too late, which ended it"
    return Cancelled(labelled(request, text))
