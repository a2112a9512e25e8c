"""One thread per instance: takes a batch, computes it, hands it back to the loop."""

import asyncio
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable

from trivet.backends.api import BackendFailed, Batch, ComputesElsewhere, Instance, ServingError
from trivet.backends.api.value import record
from trivet.server.scheduling.inline import FAST_NS, NOTHING, Extent
from trivet.server.scheduling.parts import execute_in_parts
from trivet.server.scheduling.statistics import BatchTiming
from trivet.server.scheduling.ticket import Ticket

log = logging.getLogger(__name__)


@record
class Job:
    """A batch on its way through an instance."""

    batch: Batch
    tickets: list[Ticket]
    extent: Extent = NOTHING
    started_ns: int = 0
    timing: BatchTiming | None = None
    cpu_ns: int | None = None
    """CPU time that the thread spent in it; where it was short, its wall-clock time, which is no
    less; None: not known."""
    error: ServingError | None = None
    """Why the whole batch failed."""


class _Gone:
    """In the place of an instance that was closed: nothing of it is held."""

    def execute(self, batch: Batch) -> None:
        raise BackendFailed(f"the instance is closed; {batch.size} items came in one batch")

    def is_ready(self) -> bool:
        return False

    def close(self) -> None:
        pass


_GONE = _Gone()


class Worker:
    """Owns an instance and its thread. `start` is called on the loop, `done` too.

    A batch that another process computes is handed to it, and its reply taken, on the loop: waking
    a thread for either costs as much as the rest. The thread takes what it has to wait for.
    """

    def __init__(
        self,
        name: str,
        instance: Instance,
        loop: asyncio.AbstractEventLoop,
        done: Callable[["Worker", Job], None],
        part_size: int = 0,
    ) -> None:
        """`part_size`: see InstancePool."""
        self.name = name
        self.instance: Instance = instance
        self._loop = loop
        self._done = done
        self._part_size = part_size or sys.maxsize
        self._elsewhere: ComputesElsewhere | None = (
            instance if isinstance(instance, ComputesElsewhere) else None
        )
        self._begun: Job | None = None
        """The one that is computed elsewhere, while no thread waits for it. The loop's."""
        self.is_closing = False
        """Whether it takes no batch any more."""
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closed = asyncio.Event()
        self._was_long = False
        """Only then is CPU time worth its two system calls: a short batch took no more than its
        wall-clock time, and one that waited for the processor shows it by the next."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def start(self, job: Job) -> None:
        """Gives the idle instance a batch; `done` is called with it afterwards."""
        if self._elsewhere is None or not self._begins(self._elsewhere, job):
            self._inbox.put(job)

    def _begins(self, instance: ComputesElsewhere, job: Job) -> bool:
        if self._is_in_parts(job.batch):
            return False
        started_ns = time.monotonic_ns()
        if not instance.begin(job.batch, self._loop, self._replied):
            return False
        job.started_ns = started_ns
        self._begun = job
        return True

    def _replied(self, is_here: bool) -> None:  # noqa: FBT001 - see ComputesElsewhere
        job, self._begun = self._begun, None
        assert job is not None
        if is_here:
            self.compute(job)
            self._done(self, job)
        else:
            self._inbox.put(job)
        if self.is_closing:
            self._inbox.put(None)

    async def close(self, timeout_s: float) -> bool:
        """Closes the instance after the batch in progress; False if it took longer than that."""
        self.is_closing = True
        if self._begun is None:
            self._inbox.put(None)
        try:
            await asyncio.wait_for(self._closed.wait(), timeout_s)
        except TimeoutError:
            log.warning("instance %s did not stop within %.0f s; left behind", self.name, timeout_s)
            return False
        return True

    def _run(self) -> None:
        while (job := self._inbox.get()) is not None:
            self.compute(job)
            self._post(self._done, self, job)
            # The next batch may be long in coming: hold no tensors until then.
            del job
        try:
            self.instance.close()
        except Exception:
            log.exception("instance %s failed while closing", self.name)
        self.instance, self._elsewhere = _GONE, None
        self._post(self._closed.set)

    def compute(self, job: Job) -> None:
        """The instance's door: whatever the model raises becomes the batch's error."""
        batch = job.batch
        was_long = self._was_long
        cpu_ns = time.thread_time_ns() if was_long else 0
        started_ns = job.started_ns = job.started_ns or time.monotonic_ns()
        try:
            if self._is_in_parts(batch):
                execute_in_parts(self.instance, batch, self._part_size)
            else:
                self.instance.execute(batch)
        except ServingError as error:
            job.error = error
        except Exception:
            names = {ticket.request.model_name for ticket in job.tickets}
            ids = [ticket.request.id or "-" for ticket in job.tickets]
            log.exception("instance %s failed; requests %s of %s", self.name, ids, names)
            job.error = BackendFailed(
                f"model '{names.pop()}' failed while executing; the server log has the details"
            )
        ended_ns = time.monotonic_ns()
        elapsed_ns = ended_ns - started_ns
        self._was_long = elapsed_ns > FAST_NS
        if not self._was_long:
            job.cpu_ns = elapsed_ns
        elif was_long:
            job.cpu_ns = time.thread_time_ns() - cpu_ns
        gathered_ns = batch.gathered_ns or started_ns
        computed_ns = batch.computed_ns or ended_ns
        job.timing = BatchTiming(
            gathered_ns - started_ns, computed_ns - gathered_ns, ended_ns - computed_ns
        )

    def _is_in_parts(self, batch: Batch) -> bool:
        return batch.size > self._part_size and len(batch.requests) == 1

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed: the server has given this thread up and nobody waits.
            log.debug("instance %s finished after the server had stopped", self.name)
