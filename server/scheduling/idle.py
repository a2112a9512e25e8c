"""The instances of one executor that have nothing to do, and may start something."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from trivet.server.scheduling.rate_limit import Permit
from trivet.server.scheduling.worker import Worker


class IdleWorkers:
    """First idle, first used; under a rate limiter, those that ran least. Owned by the loop."""

    __slots__ = ("_idle", "_permits", "_workers")

    def __init__(
        self,
        workers: Iterable[Worker],
        permits: Mapping[str, Permit] | None,
        wake: Callable[[Worker], None],
    ) -> None:
        """`permits` are by instance name, None without a rate limiter. `wake` is called with a
        worker that may run now, and was not permitted to when it was asked for."""
        self._workers = tuple(workers)
        self._idle = deque(self._workers)
        self._permits = permits
        if permits is not None:
            for worker in self._workers:
                permits[worker.name].on_granted = partial(wake, worker)

    def __bool__(self) -> bool:
        return bool(self._idle)

    def __contains__(self, worker: Worker) -> bool:
        return worker in self._idle

    @property
    def waits_for_wake(self) -> bool:
        """Whether `wake` follows when `take` found none; else it is worth another look soon."""
        return self._permits is not None

    def take(self) -> Worker | None:
        """An idle worker that may run now; None while all of them lack resources, or a process that
        others have."""
        if len(self._workers) == 1 and self._permits is None:
            return self._idle.popleft()
        for worker in self._candidates():
            if self._permits is None or self._permits[worker.name].ask():
                self._idle.remove(worker)
                return worker
        return None

    def claim(self, worker: Worker) -> bool:
        """Takes this worker, if it is idle and may run now."""
        if worker not in self._idle:
            return False
        if self._permits is not None and not self._permits[worker.name].ask():
            return False
        self._idle.remove(worker)
        return True

    def _candidates(self) -> Iterable[Worker]:
        """One whose process is dead or hangs must not draw all requests by being idle: as long as
        another is ready, idle or not, that one gets them."""
        ready = [worker for worker in self._idle if worker.instance.is_ready()]
        if not ready and not any(worker.instance.is_ready() for worker in self._workers):
            ready = list(self._idle)
        if self._permits is None:
            return ready
        permits = self._permits
        return sorted(ready, key=lambda each: permits[each.name].rank)

    def put(self, worker: Worker) -> None:
        """It has finished a batch."""
        self._idle.append(worker)
        if self._permits is not None:
            self._permits[worker.name].finished()

    def put_unused(self, worker: Worker) -> None:
        """It was taken for nothing."""
        self._idle.appendleft(worker)
        if self._permits is not None:
            self._permits[worker.name].withdraw()

    def withdraw(self) -> None:
        """Nothing is to be started now: what was asked for is left to others."""
        if self._permits is not None:
            for worker in self._idle:
                self._permits[worker.name].withdraw()

    def close(self) -> None:
        """The instances are gone."""
        for permit in (self._permits or {}).values():
            permit.close()
