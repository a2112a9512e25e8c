"""From computed batches and decoupled senders to the sinks: every request is counted and ends once.

Owned by the event loop, by one executor.
"""

import asyncio
import logging
import time
from collections.abc import Iterable

from trivet.backends.api import (
    BackendFailed,
    Cancelled,
    CheckedRequest,
    DeadlineExceeded,
    Execution,
    InferResponse,
    Parameters,
    ServingError,
    Signature,
    Tensor,
    Unavailable,
)
from trivet.backends.api.request import NO_PARAMETERS
from trivet.server.scheduling.decoupled import Sent
from trivet.server.scheduling.reshape import Reshape
from trivet.server.scheduling.statistics import BatchTiming, FailureReason, ModelStatistics
from trivet.server.scheduling.ticket import Ticket, labelled
from trivet.server.scheduling.worker import Job

log = logging.getLogger(__name__)


class Answers:
    """Ends the requests of one executor and knows how many have not ended."""

    def __init__(
        self, model: tuple[str, int], signature: Signature, statistics: ModelStatistics
    ) -> None:
        self._name, self._version = model
        self._is_decoupled = signature.decoupled
        self._reshape = Reshape.of(signature)
        self._statistics = statistics
        self.in_progress = 0
        """Requests that will need an end. Whoever takes one in adds it."""
        self._one_ended: asyncio.Event | None = None
        """Only while somebody waits: setting and clearing one a request would cost more than all
        other counting."""

    @property
    def num_taken(self) -> int:
        """How many have come so far, over reloads."""
        statistics = self._statistics
        return statistics.succeeded.count + statistics.failed.count + self.in_progress

    async def all_ended(self) -> None:
        """Returns when every request that was taken in has ended."""
        while self.in_progress:
            await self.one_ended()

    async def one_ended(self) -> None:
        """Returns when another request has ended."""
        self._one_ended = self._one_ended or asyncio.Event()
        await self._one_ended.wait()

    def answer(self, job: Job) -> None:
        """The answers of a computed batch."""
        self.executed(job, job.batch.size)
        batch, indices = job.batch, range(len(job.tickets))
        if batch.num_tokens is not None:
            _charge(job)
        if job.error is None and not batch.errors and not self._is_decoupled:
            self._succeed(job, indices)
            return
        for index in indices:
            self.answer_one(job, index)

    def executed(self, job: Job, size: int) -> None:
        """Counts an execution of so many batch items."""
        assert job.timing is not None
        if job.error is None:
            self._statistics.execution(size, job.timing)
        if job.batch.gathered_bytes or job.batch.copies or job.batch.synchronisations:
            self._statistics.copied(job.batch)

    def answer_one(self, job: Job, index: int) -> None:
        """The answer to one request of a computed batch; a decoupled one ends by its sender."""
        error = job.error or job.batch.errors.get(index)
        if error is None and not self._is_decoupled:
            self._succeed(job, (index,))
            return
        ticket = job.tickets[index]
        if ticket.request.trace is not None and not ticket.is_ended:
            ticket.request.trace.executed(_execution(ticket, job))
        if error is not None:
            self.fail(ticket, error)

    def _succeed(self, job: Job, indices: Iterable[int]) -> None:
        """Answers these requests of a batch. All are counted before the first is sent: that is one
        look at the clock and one call of the statistics for all of them."""
        timing, started_ns, now_ns = job.timing, job.started_ns, time.monotonic_ns()
        assert timing is not None
        answered: list[tuple[Ticket, InferResponse]] = []
        size = 0
        queues_ns: list[int] = []
        totals_ns: list[int] = []
        for index in indices:
            ticket = job.tickets[index]
            response = self._computed(ticket, job, index)
            if response is not None:
                arrived_ns = ticket.arrived_ns
                answered.append((ticket, response))
                size += ticket.request.batch_size
                queues_ns.append(started_ns - arrived_ns)
                totals_ns.append(now_ns - arrived_ns)
                ticket.is_ended = True
        if not answered:
            return
        self._statistics.answered(size, queues_ns, totals_ns, timing)
        self._ended(len(answered))
        if log.isEnabledFor(logging.DEBUG):
            for ticket, _ in answered:
                self._log(ticket.request, "answered", now_ns - ticket.arrived_ns)
        for ticket, response in answered:
            ticket.sink.send(response, final=True)

    def _computed(self, ticket: Ticket, job: Job, index: int) -> InferResponse | None:
        """What a request is answered; None for one that has failed, as it is told here."""
        request, batch = ticket.request, job.batch
        if request.trace is not None and not ticket.is_ended:
            request.trace.executed(_execution(ticket, job))
        if request.cancel.cancelled:
            self.fail(ticket, Cancelled(labelled(request, "request was cancelled")))
            return None
        outputs = batch.outputs[index]
        if request.output_names or self._reshape is not None:
            try:
                outputs = self._wanted(request, outputs)
            except ServingError as error:
                self.fail(ticket, error)
                return None
        parameters = batch.parameters.get(index) if batch.parameters else None
        return InferResponse(
            self._name, self._version, request.id, outputs, parameters or NO_PARAMETERS
        )

    def _response(
        self, request: CheckedRequest, outputs: list[Tensor], parameters: Parameters | None
    ) -> InferResponse:
        return InferResponse(
            self._name,
            self._version,
            request.id,
            self._wanted(request, outputs),
            parameters or NO_PARAMETERS,
        )

    def _wanted(self, request: CheckedRequest, outputs: list[Tensor]) -> list[Tensor]:
        if request.output_names:
            outputs = [tensor for tensor in outputs if tensor.name in request.output_names]
        return outputs if self._reshape is None else self._reshape.outputs(outputs)

    def fail(self, ticket: Ticket, error: ServingError) -> None:
        """Ends a request with an error, unless it has ended."""
        if ticket.is_ended:
            return
        total_ns = time.monotonic_ns() - ticket.arrived_ns
        self._statistics.failure(reason_for(error), total_ns)
        self._end(ticket)
        if log.isEnabledFor(logging.DEBUG):
            self._log(ticket.request, type(error).__name__, total_ns)
        ticket.sink.fail(error)

    def on_response(self, ticket: Ticket, sent: Sent) -> None:
        """One call of a decoupled model's sender, brought to the loop."""
        if ticket.is_ended:
            return
        if sent.error is not None:
            self.fail(ticket, sent.error)
            return
        request = ticket.request
        response = None
        if sent.outputs is not None:
            try:
                response = self._response(request, sent.outputs, sent.parameters)
            except ServingError as error:
                self.fail(ticket, error)
                return
        now_ns = time.monotonic_ns()
        if ticket.num_responses == 0:
            self._statistics.first_response(now_ns - ticket.arrived_ns)
        if sent.final:
            self._streamed(ticket, now_ns)
            self._end(ticket)
        if response is None:
            ticket.sink.finish()
            return
        ticket.num_responses += 1
        ticket.sink.send(response, final=sent.final)

    def _streamed(self, ticket: Ticket, now_ns: int) -> None:
        """Counts a decoupled request that has ended without an error. One that was cancelled is no
        success, whatever its model sent last."""
        request = ticket.request
        total_ns = now_ns - ticket.arrived_ns
        if request.cancel.cancelled:
            self._statistics.failure(FailureReason.CANCELED, total_ns)
            return
        if request.trace is not None:
            request.trace.executed(_stream_execution(ticket, now_ns))
        timing = BatchTiming(0, now_ns - ticket.started_ns, 0)
        queue_ns = ticket.started_ns - ticket.arrived_ns
        self._statistics.success(request.batch_size, queue_ns, timing, total_ns)

    def _log(self, request: CheckedRequest, outcome: str, total_ns: int) -> None:
        """One line for each request, with --log-verbose=1."""
        fields = {
            "request_id": request.id,
            "model": self._name,
            "version": self._version,
            "elapsed_ms": total_ns / 1e6,
        }
        log.debug("request %s", outcome, extra=fields)

    def _end(self, ticket: Ticket) -> None:
        ticket.is_ended = True
        self._ended(1)

    def _ended(self, count: int) -> None:
        self.in_progress -= count
        if self._one_ended is not None:
            self._one_ended.set()
            self._one_ended = None


def _charge(job: Job) -> None:
    for index, count in (job.batch.num_tokens or {}).items():
        pay = job.tickets[index].request.on_tokens
        if pay is not None:
            pay(count)


def _execution(ticket: Ticket, job: Job) -> Execution:
    timing = job.timing
    assert timing is not None
    gathered_ns = job.started_ns + timing.compute_input_ns
    computed_ns = gathered_ns + timing.compute_infer_ns
    ended_ns = computed_ns + timing.compute_output_ns
    times = (ticket.arrived_ns, job.started_ns, gathered_ns, computed_ns, ended_ns)
    return Execution(*times, job.batch)


def _stream_execution(ticket: Ticket, now_ns: int) -> Execution:
    """Of a decoupled request, which may end before its batch is back, or long after."""
    started_ns = ticket.started_ns
    return Execution(ticket.arrived_ns, started_ns, started_ns, now_ns, now_ns, None)


def reason_for(error: ServingError) -> FailureReason:
    """How a failure is counted."""
    if isinstance(error, Unavailable):
        return FailureReason.REJECTED
    if isinstance(error, Cancelled | DeadlineExceeded):
        return FailureReason.CANCELED
    if isinstance(error, BackendFailed):
        return FailureReason.BACKEND
    return FailureReason.OTHER
