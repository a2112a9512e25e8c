"""The instances of one executor, their threads, and the way of a batch through them.

What runs when is the executor's to decide. Owned by the event loop.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from trivet.backends.api import Cause, ComputeOnly, Instance, deaths_of, trouble_of
from trivet.server.scheduling.inline import InlinePolicy, Measure
from trivet.server.scheduling.rate_limit import Permit
from trivet.server.scheduling.worker import Job, Worker

STOPPING = "Server is stopping, scheduler for model has stopped accepting new inference requests"
"""What a request is told that comes to an executor which drains."""


class PoolUser(Protocol):
    """The executor that a pool computes for. Called on the event loop."""

    def permitted(self, worker: Worker) -> None:
        """The worker, which was not permitted to run, may now."""

    def finished(self, worker: Worker, job: Job) -> None:
        """The worker's batch is back and it is idle. Its next batch is to be started here: it
        computes while the answers of this one are written."""

    def deliver(self, job: Job) -> None:
        """The answers of a batch are due."""


class InstancePool:
    """Takes ownership of the instances; each is called by one thread at a time."""

    def __init__(
        self,
        instances: Sequence[tuple[str, Instance]],
        permits: Mapping[str, Permit] | None,
        user: PoolUser,
        *,
        preserves_order: bool,
        measure: Measure | None,
        part_size: int = 0,
    ) -> None:
        """`permits`: by instance name, under a rate limiter. `preserves_order`: batches are
        delivered in the order in which they were started. `measure`: what the cost of a batch goes
        by; None where nothing tells. `part_size`: of a batch that is one request, so many rows are
        computed at once; 0: all."""
        self._loop = asyncio.get_running_loop()
        self._part_size = part_size
        self.workers = self._workers_of(instances)
        self._past_deaths: Counter[Cause] = Counter()
        """Of instances that were given back."""
        self.idle = IdleWorkers(self.workers, permits, user.permitted)
        self._user = user
        self._in_order: deque[Job] | None = deque() if preserves_order else None
        # On the loop a batch would overtake those that are with the threads.
        only_computes = all(isinstance(instance, ComputeOnly) for _, instance in instances)
        self._measure = measure if only_computes and not preserves_order else None
        self._inline = InlinePolicy(enabled=self._measure is not None)

    def _workers_of(self, instances: Sequence[tuple[str, Instance]]) -> tuple[Worker, ...]:
        return tuple(
            Worker(name, each, self._loop, self._on_done, self._part_size)
            for name, each in instances
        )

    # -- batches -------------------------------------------------------------------------------

    def start(self, worker: Worker, job: Job) -> bool:
        """Gives a batch to a worker that was taken from the idle ones.

        Returns whether it was computed here and now instead. Then the worker is idle again, and
        the caller calls `deliver`; since that took the loop's time, others get their turn before
        the next batch."""
        if self._measure is not None:
            job.extent = self._measure(job.batch)
            if self._inline.allows(job.extent):
                worker.compute(job)
                self.idle.put(worker)
                return True
        if self._in_order is not None:
            self._in_order.append(job)
        worker.start(job)
        return False

    def _on_done(self, worker: Worker, job: Job) -> None:
        if not worker.is_closing:
            self.idle.put(worker)
        self._user.finished(worker, job)
        if self._in_order is None:
            self.deliver(job)
            return
        while self._in_order and self._in_order[0].timing is not None:
            self.deliver(self._in_order.popleft())

    def deliver(self, job: Job) -> None:
        """Has a computed batch answered, and learns from it."""
        self._inline.observe(job.extent, job.cpu_ns)
        self._user.deliver(job)

    # -- life ----------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether any instance can compute."""
        return any(worker.instance.is_ready() for worker in self.workers)

    def trouble(self) -> str:
        """Why an instance cannot compute; empty without a reason."""
        return trouble_of(worker.instance for worker in self.workers)

    def deaths(self) -> Mapping[Cause, int]:
        """How often the instances' processes have died, by cause."""
        return self._past_deaths + deaths_of(worker.instance for worker in self.workers)

    async def retire(self, timeout_s: float) -> None:
        """Frees the instances, of which nothing is asked until `replace`."""
        deaths = self._past_deaths + deaths_of(worker.instance for worker in self.workers)
        self.idle.withdraw()
        self.idle.free.clear()
        await asyncio.gather(*(worker.close(timeout_s) for worker in self.workers))
        # A batch may have been back after all of its answers, with its instance gone.
        self.idle.return_permits()
        self._past_deaths = deaths

    def replace(self, instances: Sequence[tuple[str, Instance]]) -> None:
        """Takes ownership of others in the place of those that were retired, of equal names."""
        self.workers = self._workers_of(instances)
        self.idle.replace(self.workers)

    async def close(self, timeout_s: float) -> None:
        """Frees the instances after their batches in progress, which get so long."""
        closed: tuple[Worker, ...] = ()
        while closed is not self.workers:  # it may wake meanwhile
            closed = self.workers
            await asyncio.gather(*(worker.close(timeout_s) for worker in closed))
        self.idle.close()


class IdleWorkers:
    """The instances that have nothing to do, and may start something. First idle, first used; under
    a rate limiter, those that ran least."""

    __slots__ = ("_permits", "_wake", "_workers", "free")

    def __init__(
        self,
        workers: Iterable[Worker],
        permits: Mapping[str, Permit] | None,
        wake: Callable[[Worker], None],
    ) -> None:
        """`permits` are by instance name, None without a rate limiter. `wake` is called with a
        worker that may run now, and was not permitted to when it was asked for."""
        self._workers: tuple[Worker, ...] = ()
        self.free: deque[Worker] = deque()
        """All of them, permitted or not. Not for others to change."""
        self._permits = permits
        self._wake = wake
        self.replace(workers)

    def replace(self, workers: Iterable[Worker]) -> None:
        """These are idle, and there are no others."""
        self._workers = tuple(workers)
        self.free.clear()
        self.free.extend(self._workers)
        if self._permits is not None:
            for worker in self._workers:
                self._permits[worker.name].on_granted = partial(self._wake, worker)

    def __contains__(self, worker: Worker) -> bool:
        return worker in self.free

    @property
    def waits_for_wake(self) -> bool:
        """Whether `wake` follows when `take` found none; else it is worth another look soon."""
        return self._permits is not None

    def take(self) -> Worker | None:
        """An idle worker that may run now; None while all of them lack resources, or a process that
        others have."""
        if len(self._workers) == 1 and self._permits is None:
            return self.free.popleft()
        for worker in self._candidates():
            if self._permits is None or self._permits[worker.name].ask():
                self.free.remove(worker)
                return worker
        return None

    def claim(self, worker: Worker) -> bool:
        """Takes this worker, if it is idle and may run now."""
        if worker not in self.free:
            return False
        if self._permits is not None and not self._permits[worker.name].ask():
            return False
        self.free.remove(worker)
        return True

    def _candidates(self) -> Iterable[Worker]:
        """One whose process is dead or hangs must not draw all requests by being idle: as long as
        another is ready, idle or not, that one gets them."""
        ready = [worker for worker in self.free if worker.instance.is_ready()]
        if not ready and not any(worker.instance.is_ready() for worker in self._workers):
            ready = list(self.free)
        if self._permits is None:
            return ready
        permits = self._permits
        return sorted(ready, key=lambda each: permits[each.name].rank)

    def put(self, worker: Worker) -> None:
        """It has finished a batch."""
        self.free.append(worker)
        if self._permits is not None:
            self._permits[worker.name].finished()

    def put_unused(self, worker: Worker) -> None:
        """It was taken for nothing."""
        self.free.appendleft(worker)
        if self._permits is not None:
            self._permits[worker.name].withdraw()

    def withdraw(self) -> None:
        """Nothing is to be started now: what was asked for is left to others."""
        if self._permits is not None:
            for worker in self.free:
                self._permits[worker.name].withdraw()

    def return_permits(self) -> None:
        """None of them runs any more."""
        for permit in (self._permits or {}).values():
            permit.withdraw()

    def close(self) -> None:
        """The instances are gone."""
        for permit in (self._permits or {}).values():
            permit.close()
