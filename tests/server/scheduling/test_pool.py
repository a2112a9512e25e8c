"""Idle workers: whoever is claimed is not idle, under a rate limiter only once it is permitted."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fakes import HeldInstance

from trivet.server.scheduling.pool import IdleWorkers
from trivet.server.scheduling.rate_limit import Need, RateLimiter, ResourceLimits
from trivet.server.scheduling.worker import Job, Worker


def _never(worker: Worker, job: Job) -> None:
    raise AssertionError(f"nothing was started, but {worker.name} finished {job}")


@pytest.fixture
async def workers() -> AsyncIterator[list[Worker]]:
    loop = asyncio.get_running_loop()
    made = [Worker(name, HeldInstance(), loop, _never) for name in ("first", "second")]
    yield made
    for worker in made:
        assert await worker.close(30)


async def test_a_claimed_worker_is_not_idle_until_it_is_put_back(workers: list[Worker]) -> None:
    first, second = workers
    idle = IdleWorkers(workers, None, lambda _: None)
    assert idle.claim(second)
    assert not idle.claim(second)
    assert idle.take() is first
    assert not idle.free
    idle.put_unused(second)
    assert second in idle
    assert first not in idle


async def test_a_claim_waits_for_its_own_permit_alone(workers: list[Worker]) -> None:
    first, second = workers
    need = Need({("slot", None): 1})
    permits = RateLimiter(ResourceLimits.parse(["slot:1"])).admit({"first": need, "second": need})
    woken: list[Worker] = []
    idle = IdleWorkers(workers, permits, woken.append)
    assert idle.claim(first)
    assert not idle.claim(second)
    idle.put_unused(first)
    assert woken == [second]
    assert idle.claim(second)
