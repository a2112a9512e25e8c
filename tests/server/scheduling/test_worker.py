"""What a worker tells of a batch's CPU time, which decides where the next one runs."""

import asyncio
from types import SimpleNamespace

import pytest
from fakes import make_request

from trivet.backends.api import Batch
from trivet.server.scheduling import worker as module
from trivet.server.scheduling.inline import FAST_NS
from trivet.server.scheduling.worker import Job, Worker

MS = 1_000_000


class Clocks:
    """Wall-clock and CPU time as the test has them pass, and the batches that take them."""

    def __init__(self) -> None:
        self.wall_ns = self.cpu_ns = 0
        self.next = (0, 0)
        self.num_asked = 0

    def execute(self, batch: Batch) -> None:
        self.wall_ns += self.next[0]
        self.cpu_ns += self.next[1]

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def thread_time_ns(self) -> int:
        self.num_asked += 1
        return self.cpu_ns


def computed(worker: Worker, clocks: Clocks, wall_ns: int, cpu_ns: int) -> int | None:
    clocks.next = (wall_ns, cpu_ns)
    job = Job(Batch([make_request("a")], batching=True), [])
    worker.compute(job)
    return job.cpu_ns


async def test_cpu_time_is_asked_for_only_after_a_long_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clocks = Clocks()
    times = SimpleNamespace(
        monotonic_ns=lambda: clocks.wall_ns, thread_time_ns=clocks.thread_time_ns
    )
    monkeypatch.setattr(module, "time", times)
    worker = Worker("w", clocks, asyncio.get_running_loop(), lambda *_: None)
    try:
        assert computed(worker, clocks, FAST_NS, 5) == FAST_NS  # no more than this
        assert clocks.num_asked == 0
        assert computed(worker, clocks, 3 * MS, 2 * MS) is None
        assert computed(worker, clocks, 3 * MS, 2 * MS) == 2 * MS
        assert computed(worker, clocks, 5, 5) == 5
        assert computed(worker, clocks, 3 * MS, 7) is None
        assert computed(worker, clocks, 3 * MS, 7) == 7
    finally:
        await worker.close(5)
