"""The rate limiter: nobody runs without all resources, nobody starves, priority gives turns."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from fakes import CountingSink, HeldInstance, make_request, make_signature
from google.protobuf import text_format
from patience import patience

from trivet.backends.api import InvalidConfig, Placement
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.protos.pool import POOL
from trivet.server.scheduling.batching import BatchingExecutor, Schedule
from trivet.server.scheduling.dispatch import Dispatch
from trivet.server.scheduling.policy import OneByOne
from trivet.server.scheduling.queue import LevelPolicy, QueuePolicy, RequestQueue
from trivet.server.scheduling.rate_limit import (
    Need,
    Permit,
    RateLimiter,
    ResourceKey,
    ResourceLimits,
    needs_of,
)
from trivet.server.scheduling.statistics import ModelStatistics

SLOT: ResourceKey = ("slot", None)


def permits_of(limiter: RateLimiter, *needs: Need) -> list[Permit]:
    return list(limiter.admit({f"i{n}": need for n, need in enumerate(needs)}).values())


def limiter_of(*options: str) -> RateLimiter:
    return RateLimiter(ResourceLimits.parse(options))


def test_without_options_there_is_as_much_as_the_greediest_asks_for() -> None:
    limiter = limiter_of()
    big, small, other = permits_of(limiter, Need({SLOT: 3}), Need({SLOT: 1}), Need({SLOT: 2}))
    assert small.ask()
    assert other.ask()
    assert not big.ask()
    for each, is_enough in ((small, False), (other, True)):
        each.finished()
        each.withdraw()
        assert big.is_granted == is_enough


def test_options_say_how_much_there_is() -> None:
    first, second, third = permits_of(limiter_of("slot:2"), *[Need({SLOT: 1})] * 3)
    assert [each.ask() for each in (first, second, third)] == [True, True, False]


def test_devices_have_their_own_and_global_ones_are_shared() -> None:
    limiter = limiter_of("memory:1", "memory:2:1", "slot:4")
    on_0, on_1 = ("memory", 0), ("memory", 1)
    needs = [Need({device: 1, SLOT: 1}) for device in (on_0, on_0, on_1, on_1)]
    assert [each.ask() for each in permits_of(limiter, *needs)] == [True, False, True, True]


def test_who_ran_least_goes_first_weighted_by_priority() -> None:
    eager, lazy = permits_of(limiter_of(), Need({SLOT: 1}, 1), Need({SLOT: 1}, 3))
    runs: Counter[str] = Counter()
    eager.ask()
    for _ in range(400):
        running, name = (eager, "eager") if eager.is_granted else (lazy, "lazy")
        runs[name] += 1
        other = lazy if running is eager else eager
        other.ask()
        running.finished()
        running.ask()
        assert eager.is_granted != lazy.is_granted
    assert 0.7 < runs["eager"] / runs.total() < 0.8


def test_one_that_needs_much_is_not_starved_by_many_that_need_little() -> None:
    limiter = limiter_of("slot:2")
    big, one, other = permits_of(limiter, Need({SLOT: 2}), Need({SLOT: 1}), Need({SLOT: 1}))
    assert one.ask()
    assert not big.ask()
    assert not other.ask()
    one.finished()
    assert not one.ask()
    assert (big.is_granted, other.is_granted) == (True, False)


def test_a_blocked_one_does_not_hold_up_those_with_other_resources() -> None:
    limiter = limiter_of()
    blocked, holder, free = permits_of(
        limiter, Need({SLOT: 1}), Need({SLOT: 1}), Need({("x", 0): 1})
    )
    assert holder.ask()
    assert not blocked.ask()
    assert free.ask()


def test_what_is_withdrawn_or_gone_leaves_its_resources() -> None:
    limiter = limiter_of("slot:1")
    first, second, third = permits_of(limiter, *[Need({SLOT: 1})] * 3)
    woken: list[str] = []
    third.on_granted = lambda: woken.append("third")
    assert first.ask()
    assert not second.ask()
    assert not third.ask()
    second.withdraw()
    first.close()
    assert woken == ["third"]


def test_groups_of_a_config_become_needs_of_instances() -> None:
    text = """
    instance_group { name: "m_0" rate_limiter {
      resources { name: "a" count: 4 } resources { name: "b" global: true count: 2 } priority: 3
    } }
    instance_group { name: "m_1" }
    """
    config = text_format.Parse(text, ModelConfig(), descriptor_pool=POOL)
    placements = [Placement("m_0_0", "KIND_GPU", 1, 1), Placement("m_1_1", "KIND_CPU", 0, 1)]
    assert needs_of(config, placements) == {
        "m_0_0": Need({("a", 1): 4, ("b", None): 2}, 3),
        "m_1_1": Need({}, 1),
    }
    ResourceLimits.parse(["a:4", "b:2"]).check(config, placements)
    with pytest.raises(InvalidConfig, match=r"resource count for 'a' is limited to 3 .* needs 4"):
        ResourceLimits.parse(["a:3"]).check(config, placements)


@pytest.mark.parametrize("text", ["a", "a:", "a:x", ":3", "a:1:b", "a:1:2:3", "a:-1"])
def test_an_option_that_makes_no_sense_is_named(text: str) -> None:
    with pytest.raises(InvalidConfig, match="--rate-limit-resource"):
        ResourceLimits.parse([text])


Make = Callable[..., BatchingExecutor]


@pytest.fixture
async def make_executor() -> AsyncIterator[Make]:
    made: list[BatchingExecutor] = []

    def make(limiter: RateLimiter, need: Need, *instances: HeldInstance) -> BatchingExecutor:
        names = [f"{len(made)}_{number}" for number in range(len(instances))]
        permits = limiter.admit(dict.fromkeys(names, need))
        queue = RequestQueue(QueuePolicy({0: LevelPolicy()}))
        executor = BatchingExecutor(
            ("m", 1),
            make_signature(),
            list(zip(names, instances, strict=True)),
            Schedule(queue, OneByOne(), dispatch=Dispatch(permits=permits)),
            ModelStatistics("m", 1),
        )
        made.append(executor)
        return executor

    yield make
    for executor in made:
        for worker in executor._pool.workers:
            assert isinstance(worker.instance, HeldInstance)
            worker.instance.release()
        await asyncio.wait_for(executor.drain(), patience())
        await executor.close()


async def test_two_models_that_share_a_resource_take_turns(make_executor: Make) -> None:
    limiter = limiter_of()
    first, second = HeldInstance(held=True), HeldInstance(held=True)
    executors = [make_executor(limiter, Need({SLOT: 1}), each) for each in (first, second)]
    sinks = [CountingSink(), CountingSink()]
    for executor, sink in zip(executors, sinks, strict=True):
        executor.submit(make_request("a"), sink)
    assert await asyncio.to_thread(first.started.acquire, timeout=patience())
    assert second.batches == []
    first.release()
    await sinks[0].wait()
    assert await asyncio.to_thread(second.started.acquire, timeout=patience())
    second.release()
    await sinks[1].wait()


async def test_cancelled_requests_leave_no_resource_behind(make_executor: Make) -> None:
    limiter = limiter_of()
    busy, other = HeldInstance(held=True), HeldInstance()
    first, second = (make_executor(limiter, Need({SLOT: 1}), each) for each in (busy, other))
    sinks = [CountingSink() for _ in range(3)]
    first.submit(make_request("a"), sinks[0])
    assert await asyncio.to_thread(busy.started.acquire, timeout=patience())
    cancelled = make_request("b")
    second.submit(cancelled, sinks[1])
    await asyncio.sleep(0)
    cancelled.cancel.cancel()
    busy.release()
    first.submit(make_request("c"), sinks[2])
    for sink in sinks:
        await sink.wait()
    assert other.batches == []


async def test_under_load_resources_are_never_exceeded_and_all_end(make_executor: Make) -> None:
    limiter = limiter_of("slot:3")
    needs = [Need({SLOT: count}, count) for count in (1, 2, 3)]
    executors = [make_executor(limiter, need, HeldInstance(), HeldInstance()) for need in needs]
    random = np.random.default_rng(1)
    sinks = []
    for number in range(600):
        sinks.append(CountingSink())
        request = make_request(str(number))
        executors[int(random.integers(3))].submit(request, sinks[-1])
        if random.random() < 0.1:
            request.cancel.cancel()
        if random.random() < 0.5:
            await asyncio.sleep(0)
        assert limiter._used.get(SLOT, 0) <= 3
    for sink in sinks:
        await sink.wait()
    await asyncio.sleep(0)
    assert limiter._used[SLOT] == 0
