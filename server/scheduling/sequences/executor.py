"""The executor of stateful models: requests of one sequence run in order, on one instance.

Everything here runs on the event loop, which owns the sequences, so there are no locks; the pool's
instances compute on threads of their own.
"""

import asyncio
import sys
import time
from collections.abc import Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass

from trivet.backends.api import (
    BackendFailed,
    Cause,
    CheckedRequest,
    Instance,
    InstanceDied,
    ModelNotReady,
    ResponseSender,
    ServingError,
    Signature,
    Sink,
    Use,
)
from trivet.backends.api.sleeping import OnWanted
from trivet.server.scheduling.alarm import Alarm
from trivet.server.scheduling.answers import Answers
from trivet.server.scheduling.batching import CLOSE_S
from trivet.server.scheduling.decoupled import DecoupledSender
from trivet.server.scheduling.dispatch import PLAIN, Dispatch
from trivet.server.scheduling.inline import measure_of
from trivet.server.scheduling.pool import STOPPING, InstancePool
from trivet.server.scheduling.sequences.lanes import Lane, Step, make_lane
from trivet.server.scheduling.sequences.plan import SequencePlan
from trivet.server.scheduling.sequences.queue import SequenceQueue, cancelled
from trivet.server.scheduling.sequences.requests import Placeholder, SequenceRequests
from trivet.server.scheduling.sequences.sequence import (
    CorrelationId,
    Sequence,
    SequenceTicket,
)
from trivet.server.scheduling.statistics import ModelStatistics, SequenceEnd
from trivet.server.scheduling.ticket import labelled
from trivet.server.scheduling.worker import Job, Worker


@dataclass(slots=True, eq=False)
class _Seat:
    """An instance and the sequences that are bound to it."""

    number: int
    worker: Worker
    lane: Lane
    delay: Alarm
    is_dispatch_due: bool = False


@dataclass(frozen=True, slots=True)
class SequenceSchedule:
    """What a model's config and the server's options ask for."""

    plan: SequencePlan
    max_waiting: int = 0
    """Requests that may wait beyond one per slot; 0: any number."""
    dispatch: Dispatch = PLAIN


class SequenceExecutor:
    """An Executor that keeps each sequence on one instance.

    Takes ownership of the instances.
    """

    def __init__(
        self,
        model: tuple[str, int],
        signature: Signature,
        instances: Many[tuple[str, Instance]],
        schedule: SequenceSchedule,
        statistics: ModelStatistics,
    ) -> None:
        self._name = model[0]
        self._signature = signature
        self._plan = plan = schedule.plan
        self._requests = SequenceRequests.of(plan, signature)
        self._make_batch = schedule.dispatch.make_batch
        self._hold_until = schedule.dispatch.hold_until
        self._answers = Answers(model, signature, statistics)
        self._queue = SequenceQueue(
            plan, len(instances), schedule.max_waiting, statistics, self._answers, self
        )
        self._loop = asyncio.get_running_loop()
        self._pool = InstancePool(
            instances,
            schedule.dispatch.permits,
            self,
            preserves_order=plan.batching.oldest.preserve_ordering,
            measure=measure_of(
                signature, self._make_batch, has_fixed_shapes=self._requests.base_key is None
            ),
        )
        self._idle = self._pool.idle
        self._seats = [self._seat(*each) for each in enumerate(self._pool.workers)]
        self._seat_of = {seat.worker: seat for seat in self._seats}
        self._predecessors: list[SequenceExecutor] = []
        self._on_wanted: OnWanted | None = None
        """Who is told of requests; None while there are instances."""
        self._why_asleep = ""
        """Why there were none to be had when it was to wake last."""

    def _seat(self, number: int, worker: Worker) -> _Seat:
        lane = make_lane(self._plan.batching, self._plan.max_batch_size)
        seat = _Seat(number, worker, lane, Alarm(self._loop, lambda: self._dispatch(seat)))
        return seat

    def submit(self, request: CheckedRequest, sink: Sink) -> None:
        """Queues the request behind those of its sequence; see `Executor`."""
        if self._predecessors and not request.sequence_start:
            keeper = self._keeper_of(request.sequence_id)
            if keeper is not self:
                keeper.submit(request, sink)
                return
        ticket = SequenceTicket(request, sink, time.monotonic_ns())
        self._answers.in_progress += 1
        try:
            self._queue.push(ticket)
        except ServingError as error:
            self._answers.fail(ticket, type(error)(labelled(request, error.message)))
            return
        if self._on_wanted is not None:
            self._on_wanted(request.callers)

    def _keeper_of(self, sequence_id: CorrelationId) -> "SequenceExecutor":
        """Who has the sequence that a request continues; this one where nobody has."""
        self._predecessors = [each for each in self._predecessors if not each.is_over]
        if self._queue.holds(sequence_id):
            return self
        return next((each for each in self._predecessors if each.holds(sequence_id)), self)

    # -- batches -------------------------------------------------------------------------------

    def ready(self, sequence: Sequence) -> None:
        """For the queue: offers the sequence's first request to its instance."""
        assert sequence.slot is not None
        sequence.waiting[0].join_key = self._requests.join_key(sequence)
        seat = self._seats[sequence.slot.instance]
        seat.lane.add(sequence)
        self._dispatch_soon(seat)

    def gone(self, sequence: Sequence) -> None:
        """For the queue: the sequence's instance forgets it."""
        assert sequence.slot is not None
        self._seats[sequence.slot.instance].lane.remove(sequence)

    def can_run(self, instance: int) -> bool:
        """For the queue: whether new sequences should begin there."""
        return self.is_asleep or self._seats[instance].worker.instance.is_ready()

    def _dispatch_soon(self, seat: _Seat) -> None:
        """Dispatches at the end of this loop tick, so that requests read together go together."""
        if not seat.is_dispatch_due and seat.worker in self._idle:
            seat.is_dispatch_due = True
            self._loop.call_soon(self._dispatch, seat)

    def _dispatch(self, seat: _Seat) -> None:
        seat.is_dispatch_due = False
        if self._hold_until:
            if len(self._queue) < self._hold_until:
                return
            self._hold_until = 0
            for each in self._seats:
                self._dispatch_soon(each)
        if not self._idle.claim(seat.worker):
            return
        now_ns = time.monotonic_ns()
        decision = seat.lane.decide(now_ns)
        if isinstance(decision, Step):
            self._start(seat, self._job(decision, now_ns))
            return
        self._idle.put_unused(seat.worker)
        if decision is not None:
            seat.delay.at(decision.time_ns)

    def _start(self, seat: _Seat, job: Job) -> None:
        if self._pool.start(seat.worker, job):
            self._settle(seat, job)
            self._pool.deliver(job)
            self._dispatch_soon(seat)

    def _job(self, step: Step, now_ns: int) -> Job:
        """Takes the step's requests out of their lines and makes the batch."""
        tickets: list[SequenceTicket | None] = []
        made: list[CheckedRequest | None] = []
        for sequence in step.positions:
            ticket = None if sequence is None else self._queue.take(sequence, now_ns)
            tickets.append(ticket)
            made.append(None if ticket is None else self._requests.of_ticket(ticket))
        mate = next(request for request in made if request is not None)
        filled = [ticket or self._requests.placeholder(mate) for ticket in tickets]
        batch = self._make_batch(
            [own or each.request for own, each in zip(made, filled, strict=True)],
            batching=self._signature.batching,
            senders=[self._sender(each) for each in filled] if self._signature.decoupled else (),
        )
        return Job(batch, list(filled))

    def _sender(self, ticket: SequenceTicket) -> ResponseSender:
        """Only the batch may hold it: letting go of it without an end ends the request."""
        if ticket.sequence is None:
            return Placeholder()
        sender, ticket.sender = ticket.sender, None
        return sender or DecoupledSender(self._loop, ticket, self._answers.on_response)

    # -- for the pool --------------------------------------------------------------------------

    def permitted(self, worker: Worker) -> None:
        """See PoolUser."""
        self._dispatch_soon(self._seat_of[worker])

    def finished(self, worker: Worker, job: Job) -> None:
        """See PoolUser."""
        seat = self._seat_of[worker]
        self._settle(seat, job)
        self._dispatch(seat)

    def deliver(self, job: Job) -> None:
        """See PoolUser. Requests that run again get their answers later."""
        live = [index for index, ticket in enumerate(job.tickets) if not _is_placeholder(ticket)]
        self._answers.executed(job, len(live))
        for index in live:
            is_final = job.error is not None or index in job.batch.errors
            if is_final or index not in job.batch.rescheduled:
                self._answers.answer_one(job, index)

    # -- after a batch -------------------------------------------------------------------------

    def _settle(self, seat: _Seat, job: Job) -> None:
        """What the batch means for its sequences: new states, who may go on, who is over."""
        if isinstance(job.error, InstanceDied) and self._plan.state is None:
            self._queue.lose(seat.number, job.error)
        for index, ticket in enumerate(job.tickets):
            assert isinstance(ticket, SequenceTicket)
            sequence = ticket.sequence
            if sequence is None:
                continue
            if job.error is None and index not in job.batch.errors:
                self._keep_state(sequence, job, index)
            if self._plan.is_iterative:
                self._settle_pass(sequence, ticket, job, index)
            else:
                self._queue.done(sequence)

    def _keep_state(self, sequence: Sequence, job: Job, index: int) -> None:
        state, batch = self._plan.state, job.batch
        if state is None:
            return
        is_shared = len(batch.requests) > 1
        try:
            outputs = state.take(sequence, batch.outputs[index], is_shared=is_shared)
        except BackendFailed as error:
            batch.fail(index, BackendFailed(f"model '{self._name}': {error.message}"))
        else:
            batch.outputs[index] = outputs

    def _settle_pass(
        self, sequence: Sequence, ticket: SequenceTicket, job: Job, index: int
    ) -> None:
        """Another pass over the request if the model wants one, else the end of its sequence."""
        sequence.is_running = False
        is_wanted = job.error is None and index in job.batch.rescheduled
        if is_wanted and ticket.request.cancel.cancelled:
            self._answers.fail(ticket, cancelled(ticket))
        if not is_wanted or ticket.is_ended or sequence.is_over or index in job.batch.errors:
            self._queue.end(sequence, SequenceEnd.COMPLETED)
            return
        ticket.is_start = False
        if job.batch.senders:
            ticket.sender = job.batch.senders[index]
        self._queue.push_again(sequence, ticket)

    # -- sleep ---------------------------------------------------------------------------------

    @property
    def is_asleep(self) -> bool:
        """See Sleeps."""
        return self._on_wanted is not None

    def use(self) -> Use:
        """See Sleeps."""
        num_open, answers = self._queue.num_sequences, self._answers
        num_here = answers.in_progress
        has_begun = num_here > len(self._queue)
        return Use(answers.num_taken, num_here > 0 or num_open > 0, has_begun, num_open > 0)

    async def sleep(self, on_wanted: OnWanted) -> None:
        """See Sleeps. While there are sequences it does not: its instances know them."""
        if self.use().is_busy:
            return
        self._on_wanted = on_wanted
        self._hold_until = sys.maxsize
        await self._pool.retire(CLOSE_S)

    def wake(self, instances: Many[tuple[str, Instance]]) -> None:
        """See Sleeps."""
        self._on_wanted, self._why_asleep = None, ""
        self._pool.replace(instances)
        for seat, worker in zip(self._seats, self._pool.workers, strict=True):
            seat.worker = worker
        self._seat_of = {seat.worker: seat for seat in self._seats}
        self._go_on()

    def _go_on(self) -> None:
        self._hold_until = 0
        for seat in self._seats:
            self._dispatch_soon(seat)

    def stay_asleep(self, error: ModelNotReady) -> None:
        """See Sleeps."""
        self._why_asleep = error.message
        self._queue.cut_all(error, SequenceEnd.LOST)

    # -- life ----------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether it has no sequence, begins none any more and passes none on."""
        is_empty = bool(self._queue.stopping) and self._queue.num_sequences == 0
        return is_empty and all(each.is_over for each in self._predecessors)

    def holds(self, sequence_id: CorrelationId) -> bool:
        """Whether a request of this id continues a sequence that is here, or is passed on."""
        return self._keeper_of(sequence_id) is not self or self._queue.holds(sequence_id)

    def inherit(self, predecessor: "SequenceExecutor") -> None:
        """Passes requests of the predecessor's sequences on to it, until they have ended."""
        self._predecessors.append(predecessor)

    def is_ready(self) -> bool:
        """Whether any instance can compute."""
        if self.is_asleep:
            return not self._queue.stopping and not self._why_asleep
        return not self._queue.stopping and self._pool.is_ready()

    def trouble(self) -> str:
        """See Supervised."""
        return "" if self.is_ready() else self._why_asleep or self._pool.trouble()

    def deaths(self) -> Mapping[Cause, int]:
        """See Supervised."""
        return self._pool.deaths()

    async def finish_sequences(self) -> None:
        """Begins no new sequence and returns when all have ended or have been idle for too long."""
        self._queue.stopping = self._queue.stopping or STOPPING
        await self._queue.no_sequence()

    async def drain(self) -> None:
        """Begins no new sequence and returns when every submitted request has ended; sequences
        whose next request has not come by then are over."""
        self._queue.stopping = self._queue.stopping or STOPPING
        if not self.is_asleep:
            self._go_on()
        await self._answers.all_ended()
        self._queue.end_all()

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Fails what still waits, then frees the instances."""
        unloaded = f"model '{self._name}' is being unloaded"
        self._queue.stopping = self._queue.stopping or unloaded
        self._queue.close()
        for seat in self._seats:
            seat.delay.cancel()
        await self._pool.close(timeout_s)


def _is_placeholder(ticket: object) -> bool:
    assert isinstance(ticket, SequenceTicket)
    return ticket.sequence is None
