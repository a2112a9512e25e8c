"""The instances of one executor that have nothing to do, and may start something."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from trivet.server.scheduling.rate_limit import Permit
from trivet.server.scheduling.worker import Worker


class IdleWorkers:
    """First idle, first used; under a rate limiter, those that ran least. Owned by the loop."""

    __slots__ = ("_idle", "_permits")

    def __init__(
        self,
        workers: Iterable[Worker],
        permits: Mapping[str, Permit] | None,
        wake: Callable[[], None],
    ) -> None:
        """`permits` are by instance name, None without a rate limiter. `wake` is called when
        `take` may succeed after it had not."""
        self._idle = deque(workers)
        self._permits = permits
        for permit in (permits or {}).values():
            permit.on_granted = wake

    def __bool__(self) -> bool:
        return bool(self._idle)

    def take(self) -> Worker | None:
        """An idle worker that may run now; None while all of them lack resources."""
        if self._permits is None:
            return self._idle.popleft()
        permits = self._permits
        for worker in sorted(self._idle, key=lambda each: permits[each.name].rank):
            if permits[worker.name].ask():
                self._idle.remove(worker)
                return worker
        return None

    def put(self, worker: Worker) -> None:
        """It has finished a batch."""
        self._idle.append(worker)
        if self._permits is not None:
            self._permits[worker.name].finished()

    def put_unused(self, worker: Worker) -> None:
        """It was taken for nothing."""
        self._idle.appendleft(worker)
        self.withdraw()

    def close(self) -> None:
        """The instances are gone."""
        for permit in (self._permits or {}).values():
            permit.close()

    def withdraw(self) -> None:
        """Nothing is to be started now: what was asked for is left to others."""
        if self._permits is not None:
            for worker in self._idle:
                self._permits[worker.name].withdraw()
