"""The executor around a model's instances: one queue, batches to idle instances, answers to sinks.

Everything here runs on the event loop, which owns the queue, so there are no locks; the pool's
instances compute on threads of their own.
"""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trivet.backends.api import (
    Batch,
    Cancelled,
    Cause,
    CheckedRequest,
    Instance,
    ModelNotReady,
    QueueFull,
    ServingError,
    Signature,
    Sink,
    Unavailable,
    Use,
)
from trivet.backends.api.sleeping import OnWanted
from trivet.server.scheduling.alarm import Alarm
from trivet.server.scheduling.answers import Answers
from trivet.server.scheduling.decoupled import DecoupledSender
from trivet.server.scheduling.dispatch import PLAIN, Dispatch
from trivet.server.scheduling.expiry import Expiry
from trivet.server.scheduling.inline import measure_of
from trivet.server.scheduling.joining import LengthOf, join_key_of, marker_of
from trivet.server.scheduling.policy import BatchPolicy, Policy, WaitUntil
from trivet.server.scheduling.pool import STOPPING, InstancePool
from trivet.server.scheduling.queue import RequestQueue
from trivet.server.scheduling.rebound import Rebound
from trivet.server.scheduling.statistics import ModelStatistics
from trivet.server.scheduling.ticket import Ticket, labelled
from trivet.server.scheduling.worker import Job, Worker

CLOSE_S = 5.0
"""How long an instance may take to close."""
_LOOK_AGAIN_NS = 20_000_000
"""How soon an instance that is idle but not ready is looked at again."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What decides the order of work."""

    queue: RequestQueue
    policy: Policy
    preserve_ordering: bool = False
    dispatch: Dispatch = PLAIN
    part_size: int = 0
    """How many rows of a request are computed at once; 0: all."""
    length_of: LengthOf | None = None
    """Of a request, where the policy goes by it."""


class BatchingExecutor:
    """An Executor that batches requests and runs them on the first idle instance.

    Takes ownership of the instances.
    """

    def __init__(
        self,
        model: tuple[str, int],
        signature: Signature,
        instances: Sequence[tuple[str, Instance]],
        schedule: Schedule,
        statistics: ModelStatistics,
    ) -> None:
        self._name = model[0]
        self._signature = signature
        join_key = join_key_of(signature)
        self._mark = marker_of(join_key, schedule.length_of)
        self._queue = schedule.queue
        self._policy = schedule.policy
        self._make_batch = schedule.dispatch.make_batch
        self._hold_until = schedule.dispatch.hold_until
        self._statistics = statistics
        self._answers = Answers(model, signature, statistics)
        self._loop = asyncio.get_running_loop()
        self._pool = InstancePool(
            instances,
            schedule.dispatch.permits,
            self,
            preserves_order=schedule.preserve_ordering,
            part_size=schedule.part_size,
            measure=measure_of(signature, self._make_batch, has_fixed_shapes=join_key is None),
        )
        self._idle = self._pool.idle
        self._free = self._idle.free
        self._rebound = Rebound(_rebound_size(self._policy, len(instances)))
        self._is_dispatch_due = False
        self._delay = Alarm(self._loop, self._dispatch)
        self._expiry = Expiry(self._loop, self._expire)
        self._is_sweep_due = False
        self._stopping = ""
        self._on_wanted: OnWanted | None = None
        """Who is told of requests; None while there are instances."""
        self._why_asleep = ""
        """Why there were none to be had when it was to wake last."""

    # -- requests in ---------------------------------------------------------------------------

    def submit(self, request: CheckedRequest, sink: Sink) -> None:
        """Queues the request; see `Executor`."""
        ticket = Ticket(request, sink, time.monotonic_ns())
        if self._mark is not None:
            self._mark(ticket)
        self._answers.in_progress += 1
        self._statistics.pending += 1
        try:
            if self._stopping:
                raise Unavailable(labelled(request, self._stopping))
            try:
                self._queue.push(ticket)
            except QueueFull:
                # Those whose client has gone make room first.
                self._sweep()
                self._queue.push(ticket)
        except ServingError as error:
            self._statistics.pending -= 1
            self._answers.fail(ticket, error)
            return
        if ticket.expires_ns or request.deadline is not None:
            self._expiry.watch(ticket)
        if not self._free:
            # It will wait: its client's going must free its place.
            request.cancel.on_cancel(self._sweep_soon)
            if self._on_wanted is not None:
                self._on_wanted(request.callers)
        elif not self._is_dispatch_due:
            self._dispatch_soon()

    def _dispatch_soon(self) -> None:
        """Dispatches at the end of this loop tick, so that requests read together go together."""
        if not self._is_dispatch_due and self._free:
            self._is_dispatch_due = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._is_dispatch_due = False
        if self._hold_until:
            if self._queue.size < self._hold_until:
                return
            self._hold_until = 0
        while self._free and self._queue.size:
            now_ns = time.monotonic_ns()
            if self._rebound.until_ns and (
                held_ns := self._rebound.wait_until_ns(self._queue.size, now_ns)
            ):
                self._delay.at(held_ns)
                break
            decision = self._policy.decide(self._queue, now_ns)
            if isinstance(decision, WaitUntil):
                self._delay.at(decision.time_ns)
                break
            worker = self._idle.take()
            if worker is None:
                if not self._idle.waits_for_wake:
                    self._delay.at(now_ns + _LOOK_AGAIN_NS)
                return
            if self._start(worker, decision.take_from(self._queue), now_ns) and self._queue.size:
                # It took the loop's time: others get their turn first.
                self._dispatch_soon()
                return
        self._idle.withdraw()

    def _start(self, worker: Worker, tickets: list[Ticket], now_ns: int) -> bool:
        """Hands tickets to a worker, without those that need not be computed any more.

        Returns whether they were computed here and now instead."""
        self._statistics.pending -= len(tickets)
        live = []
        for ticket in tickets:
            if ticket.request.cancel.cancelled:
                self._answers.fail(
                    ticket, Cancelled(labelled(ticket.request, "request was cancelled"))
                )
            else:
                ticket.started_ns = now_ns
                live.append(ticket)
        if not live:
            self._idle.put_unused(worker)
            return False
        job = Job(self._batch(live), live)
        is_computed = self._pool.start(worker, job)
        if is_computed:
            self._pool.deliver(job)
        return is_computed

    def _batch(self, tickets: list[Ticket]) -> Batch:
        requests = [ticket.request for ticket in tickets]
        senders: list[DecoupledSender] = []
        if self._signature.decoupled:
            senders = [DecoupledSender(self._loop, t, self._answers.on_response) for t in tickets]
        return self._make_batch(requests, batching=self._signature.batching, senders=senders)

    # -- for the pool --------------------------------------------------------------------------

    def permitted(self, worker: Worker) -> None:  # noqa: ARG002 - whichever comes first takes the batch
        """See PoolUser."""
        self._dispatch_soon()

    def finished(self, worker: Worker, job: Job) -> None:  # noqa: ARG002 - any may be the next one
        """See PoolUser."""
        assert job.timing is not None
        compute_ns = job.timing.compute_infer_ns
        self._rebound.finished(len(job.tickets), self._queue.size, compute_ns, time.monotonic_ns())
        if self._queue.size:
            self._dispatch()
        else:
            self._idle.withdraw()

    def deliver(self, job: Job) -> None:
        """See PoolUser."""
        self._answers.answer(job)

    # -- time ----------------------------------------------------------------------------------

    def _expire(self, now_ns: int) -> int:
        self._take_out(now_ns)
        return self._queue.next_expiry_ns()

    def _sweep_soon(self) -> None:
        if not self._is_sweep_due:
            self._is_sweep_due = True
            self._loop.call_soon(self._sweep)

    def _sweep(self) -> None:
        self._is_sweep_due = False
        self._take_out(time.monotonic_ns())

    def _take_out(self, now_ns: int) -> None:
        """Ends those that are cancelled or have waited too long."""
        for refused in self._queue.sweep(now_ns):
            self._statistics.pending -= 1
            self._answers.fail(refused.ticket, refused.error)

    # -- sleep ---------------------------------------------------------------------------------

    @property
    def is_asleep(self) -> bool:
        """See Sleeps."""
        return self._on_wanted is not None

    def use(self) -> Use:
        """See Sleeps."""
        num_here = self._answers.in_progress
        return Use(self._answers.num_taken, num_here > 0, num_here > self._queue.size)

    async def sleep(self, on_wanted: OnWanted) -> None:
        """See Sleeps."""
        self._on_wanted = on_wanted
        self._hold_until = sys.maxsize
        self._idle.withdraw()
        self._free.clear()
        while self._answers.in_progress > self._queue.size:
            await self._answers.one_ended()
            # What the instance held is for others by now.
            self._idle.withdraw()
            self._free.clear()
        await self._pool.retire(CLOSE_S)
        for ticket in self._queue:
            ticket.request.cancel.on_cancel(self._sweep_soon)
            on_wanted(ticket.request.callers)

    def wake(self, instances: Sequence[tuple[str, Instance]]) -> None:
        """See Sleeps."""
        self._on_wanted, self._why_asleep = None, ""
        self._hold_until = 0
        self._pool.replace(instances)
        self._dispatch()

    def stay_asleep(self, error: ModelNotReady) -> None:
        """See Sleeps."""
        self._why_asleep = error.message
        self._fail_waiting(error)

    # -- life ----------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether any instance can compute."""
        if self._on_wanted is not None:
            return not self._stopping and not self._why_asleep
        return not self._stopping and self._pool.is_ready()

    def trouble(self) -> str:
        """See Supervised."""
        return "" if self.is_ready() else self._why_asleep or self._pool.trouble()

    def deaths(self) -> Mapping[Cause, int]:
        """See Supervised."""
        return self._pool.deaths()

    async def drain(self) -> None:
        """Refuses new requests and returns when every submitted one has ended."""
        if not self._stopping:
            self._stopping = STOPPING
        if self._on_wanted is None:
            self._hold_until = 0
            self._dispatch()
        await self._answers.all_ended()

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Fails what still waits, then frees the instances."""
        self._stopping = self._stopping or f"model '{self._name}' is being unloaded"
        self._fail_waiting(Unavailable(self._stopping))
        self._delay.cancel()
        self._expiry.cancel()
        await self._pool.close(timeout_s)

    def _fail_waiting(self, reason: Unavailable) -> None:
        tickets = self._queue.pop(self._queue.size)
        self._statistics.pending -= len(tickets)
        for ticket in tickets:
            error = type(reason)(
                labelled(ticket.request, reason.message), retry_after_s=reason.retry_after_s
            )
            self._answers.fail(ticket, error)


def _rebound_size(policy: Policy, num_instances: int) -> int:
    """Several instances take turns: what one answers, another may have begun to wait for."""
    return policy.max_batch_size if isinstance(policy, BatchPolicy) and num_instances == 1 else 0
