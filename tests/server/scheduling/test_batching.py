"""The batching executor: nothing lost, nothing answered twice, failures hurt only their own."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from fakes import CountingSink, HeldInstance, make_request, make_signature
from patience import patience

from trivet.backends.api import (
    BackendFailed,
    Batch,
    Cancelled,
    CheckedRequest,
    ComputeOnly,
    DeadlineExceeded,
    InferResponse,
    Instance,
    QueueFull,
    QueueTimeout,
    ResponseSender,
    Signature,
    Unavailable,
)
from trivet.server.scheduling.batching import BatchingExecutor, Schedule
from trivet.server.scheduling.dispatch import Dispatch
from trivet.server.scheduling.inline import FIRST_TRIAL
from trivet.server.scheduling.joining import LengthOf
from trivet.server.scheduling.lengths import LengthPolicy
from trivet.server.scheduling.policy import BatchPolicy, OneByOne, Policy
from trivet.server.scheduling.pool import STOPPING
from trivet.server.scheduling.queue import LevelPolicy, QueuePolicy, RequestQueue
from trivet.server.scheduling.statistics import ModelStatistics

BATCHES_OF_8 = BatchPolicy(8, frozenset({8}))
Make = Callable[..., BatchingExecutor]


@pytest.fixture
async def make_executor() -> AsyncIterator[Make]:
    """Builds executors and checks at the end that none holds a request."""
    made: list[BatchingExecutor] = []

    def make(
        *instances: Instance,
        policy: Policy = BATCHES_OF_8,
        level: LevelPolicy | None = None,
        signature: Signature | None = None,
        preserve_ordering: bool = False,
        hold_until: int = 0,
        length_of: LengthOf | None = None,
    ) -> BatchingExecutor:
        queue = RequestQueue(QueuePolicy({0: level or LevelPolicy()}))
        executor = BatchingExecutor(
            ("m", 1),
            signature or make_signature(),
            [(f"m_0_{index}", instance) for index, instance in enumerate(instances)],
            Schedule(queue, policy, preserve_ordering, Dispatch(hold_until), length_of=length_of),
            ModelStatistics("m", 1),
        )
        made.append(executor)
        return executor

    yield make
    for executor in made:
        for worker in executor._pool.workers:
            if isinstance(worker.instance, HeldInstance):
                worker.instance.release()
        await asyncio.wait_for(executor.drain(), patience())
        await executor.close()


def submit(executor: BatchingExecutor, *requests: CheckedRequest) -> list[CountingSink]:
    sinks = [CountingSink() for _ in requests]
    for request, sink in zip(requests, sinks, strict=True):
        executor.submit(request, sink)
    return sinks


async def started(instance: HeldInstance) -> None:
    assert await asyncio.to_thread(instance.started.acquire, timeout=patience())


async def test_each_request_gets_its_own_rows(make_executor: Make) -> None:
    executor = make_executor(HeldInstance())
    requests = [make_request(str(n), rows=n, value=n) for n in (1, 2, 3)]
    sinks = submit(executor, *requests)
    for n, sink in zip((1, 2, 3), sinks, strict=True):
        await sink.wait()
        (response,) = sink.responses
        assert response.id == str(n)
        assert (response.outputs[0].numpy() == np.full((n, 2), 2.0 * n)).all()


async def test_requests_of_one_loop_tick_share_a_batch_and_its_memory(make_executor: Make) -> None:
    instance = HeldInstance()
    sinks = submit(make_executor(instance), make_request("a"), make_request("b"))
    for sink in sinks:
        await sink.wait()
    assert instance.batches == [["a", "b"]]
    first, second = (sink.responses[0].outputs[0].numpy() for sink in sinks)
    assert first.base is not None
    assert first.base is second.base


async def test_a_batch_is_counted_before_the_first_of_its_clients_is_told(
    make_executor: Make,
) -> None:
    """Whoever is answered and asks for statistics finds its request in them."""
    executor = make_executor(HeldInstance())
    seen: list[int] = []

    class Looking(CountingSink):
        def send(self, response: InferResponse, *, final: bool) -> None:
            seen.append(executor._statistics.inference_count)
            super().send(response, final=final)

    sinks = [Looking(), Looking()]
    for sink in sinks:
        executor.submit(make_request("a"), sink)
    for sink in sinks:
        await sink.wait()
    assert seen == [2, 2]


async def test_requests_gather_while_the_instance_is_busy(make_executor: Make) -> None:
    instance = HeldInstance(held=True)
    executor = make_executor(instance)
    (first,) = submit(executor, make_request("0"))
    await started(instance)
    rest = submit(executor, *(make_request(str(n)) for n in range(1, 10)))
    instance.release()
    for sink in (first, *rest):
        await sink.wait()
    assert instance.batches == [["0"], [str(n) for n in range(1, 9)], ["9"]]


async def test_cancelled_request_leaves_its_batch_mates_unharmed(make_executor: Make) -> None:
    instance = HeldInstance(held=True)
    executor = make_executor(instance)
    requests = [make_request(name) for name in "abc"]
    sinks = submit(executor, *requests)
    await started(instance)
    requests[1].cancel.cancel()
    instance.release()
    for sink in sinks:
        await sink.wait()
    assert isinstance(sinks[1].error, Cancelled)
    assert [len(sink.responses) for sink in sinks] == [1, 0, 1]


async def test_request_cancelled_in_the_queue_is_not_computed(make_executor: Make) -> None:
    instance = HeldInstance(held=True)
    executor = make_executor(instance, policy=OneByOne())
    requests = [make_request(name) for name in "ab"]
    sinks = submit(executor, *requests)
    await started(instance)
    requests[1].cancel.cancel()
    instance.release()
    for sink in sinks:
        await sink.wait()
    assert isinstance(sinks[1].error, Cancelled)
    assert instance.batches == [["a"]]


async def test_a_cancelled_request_frees_its_place_while_the_instance_is_busy(
    make_executor: Make,
) -> None:
    instance = HeldInstance(held=True)
    executor = make_executor(instance)
    submit(executor, make_request("computing"))
    await started(instance)
    request = make_request("waiting")
    (sink,) = submit(executor, request)
    request.cancel.cancel()
    await sink.wait()
    assert isinstance(sink.error, Cancelled)
    assert len(executor._queue) == 0
    instance.release()


async def test_a_failing_batch_fails_its_requests_with_a_fixed_text(
    make_executor: Make, caplog: pytest.LogCaptureFixture
) -> None:
    instance = HeldInstance(error=RuntimeError("secret /etc/path"))
    sinks = submit(make_executor(instance), make_request("a"), make_request("b"))
    for sink in sinks:
        await sink.wait()
        assert isinstance(sink.error, BackendFailed)
        assert "secret" not in sink.error.message
        assert "'m'" in sink.error.message
    assert caplog.text.count("Traceback") == 1


async def test_the_model_s_own_error_text_reaches_the_client(make_executor: Make) -> None:
    (sink,) = submit(make_executor(HeldInstance(error=BackendFailed("too dark"))), make_request())
    await sink.wait()
    assert sink.error is not None
    assert sink.error.message == "too dark"


async def test_an_instance_goes_on_after_a_failure(make_executor: Make) -> None:
    instance = HeldInstance(error=BackendFailed("once"))
    executor = make_executor(instance)
    (failed,) = submit(executor, make_request())
    await failed.wait()
    instance.error = None
    (sink,) = submit(executor, make_request())
    await sink.wait()
    assert len(sink.responses) == 1


async def test_a_full_queue_refuses_at_once_and_cancelled_requests_make_room(
    make_executor: Make,
) -> None:
    instance = HeldInstance(held=True)
    executor = make_executor(instance, policy=OneByOne(), level=LevelPolicy(max_size=1))
    submit(executor, make_request("busy"))
    await started(instance)
    waiting = make_request("waiting")
    (waiting_sink,) = submit(executor, waiting)
    (refused,) = submit(executor, make_request("refused"))
    assert isinstance(refused.error, QueueFull)
    waiting.cancel.cancel()
    (taken,) = submit(executor, make_request("taken"))
    assert taken.error is None
    assert isinstance(waiting_sink.error, Cancelled)


async def test_a_deadline_ends_a_waiting_request_while_the_instance_is_stuck(
    make_executor: Make,
) -> None:
    instance = HeldInstance(held=True)
    executor = make_executor(instance, policy=OneByOne())
    submit(executor, make_request("stuck"))
    await started(instance)
    late = make_request("late", deadline=0.001)
    (sink,) = submit(executor, late)
    await sink.wait()
    assert isinstance(sink.error, DeadlineExceeded)


async def test_order_is_kept_over_instances_where_it_is_promised(make_executor: Make) -> None:
    slow, fast = HeldInstance(held=True), HeldInstance()
    executor = make_executor(slow, fast, policy=OneByOne(), preserve_ordering=True)
    order: list[str] = []
    sinks = submit(executor, *(make_request(name) for name in "abc"))
    for name, sink in zip("abc", sinks, strict=True):
        sink.on_end = lambda name=name: order.append(name)  # type: ignore[misc] # bound name
    await started(slow)
    await started(fast)
    await started(fast)
    assert order == []
    slow.release()
    for sink in sinks:
        await sink.wait()
    assert order == ["a", "b", "c"]


async def test_several_instances_work_side_by_side(make_executor: Make) -> None:
    instances = [HeldInstance(held=True), HeldInstance(held=True)]
    executor = make_executor(*instances, policy=OneByOne())
    sinks = submit(executor, make_request("a"), make_request("b"))
    for instance in instances:
        await started(instance)
        instance.release()
    for sink in sinks:
        await sink.wait()


async def test_the_batcher_can_be_held_until_so_many_requests_wait(make_executor: Make) -> None:
    instance = HeldInstance()
    executor = make_executor(instance, hold_until=3)
    submit(executor, make_request("a"))
    await asyncio.sleep(0)
    sinks = submit(executor, make_request("b"), make_request("c"))
    for sink in sinks:
        await sink.wait()
    assert instance.batches == [["a", "b", "c"]]


async def test_drain_answers_what_was_taken_and_refuses_the_rest(make_executor: Make) -> None:
    instance = HeldInstance(held=True)
    executor = make_executor(instance)
    (taken,) = submit(executor, make_request())
    await started(instance)
    drain = asyncio.ensure_future(executor.drain())
    await asyncio.sleep(0)
    (refused,) = submit(executor, make_request("late"))
    assert isinstance(refused.error, Unavailable)
    assert refused.error.message == f"[request id: late] {STOPPING}"
    assert not drain.done()
    instance.release()
    await asyncio.wait_for(drain, patience())
    assert len(taken.responses) == 1


async def test_close_ends_what_waits_and_closes_the_instances(make_executor: Make) -> None:
    instance = HeldInstance(held=True)
    executor = make_executor(instance, policy=OneByOne())
    sinks = submit(executor, make_request("a"), make_request("b"))
    await started(instance)
    closing = asyncio.ensure_future(executor.close())
    await sinks[1].wait()
    assert isinstance(sinks[1].error, Unavailable)
    instance.release()
    await asyncio.wait_for(closing, patience())
    await sinks[0].wait()
    assert instance.is_closed


class Repeater:
    """A decoupled instance that leaves its senders to the test."""

    def __init__(self) -> None:
        self.senders: list[ResponseSender] = []

    def execute(self, batch: Batch) -> None:
        self.senders += batch.senders

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        self.senders.clear()


async def decoupled(make_executor: Make) -> tuple[Repeater, CountingSink]:
    instance = Repeater()
    executor = make_executor(instance, signature=make_signature(decoupled=True))
    (sink,) = submit(executor, make_request())
    while not instance.senders:
        await asyncio.sleep(0)
    return instance, sink


async def test_a_decoupled_model_may_answer_often_and_later(make_executor: Make) -> None:
    instance, sink = await decoupled(make_executor)
    for _ in range(3):
        instance.senders[0].send([])
    instance.senders[0].finish()
    await sink.wait()
    assert len(sink.responses) == 3


async def test_what_a_decoupled_model_sends_after_the_end_is_ignored(make_executor: Make) -> None:
    instance, sink = await decoupled(make_executor)
    instance.senders[0].send([], final=True)
    instance.senders[0].send([])
    instance.senders[0].finish()
    await sink.wait()
    await asyncio.sleep(0)
    assert len(sink.responses) == 1


async def test_a_dropped_response_sender_ends_its_request(make_executor: Make) -> None:
    instance, sink = await decoupled(make_executor)
    instance.senders.clear()
    while sink.error is None:
        gc.collect()
        await asyncio.sleep(0)
    assert "without a final response" in sink.error.message


async def test_ten_thousand_requests_with_random_cancels_each_end_once(make_executor: Make) -> None:
    executor = make_executor(HeldInstance(), HeldInstance())
    random = np.random.default_rng(7)
    sinks: list[CountingSink] = []
    for number in range(10_000):
        request = make_request(str(number), rows=int(random.integers(1, 5)), value=number)
        sinks += submit(executor, request)
        if random.random() < 0.2:
            request.cancel.cancel()
        if number % 100 == 0:
            await asyncio.sleep(0)
    for number, sink in enumerate(sinks):
        await sink.wait()
        assert sink.ends == 1
        if sink.error is None:
            assert (sink.responses[0].outputs[0].numpy() == 2.0 * number).all()
        else:
            assert isinstance(sink.error, Cancelled)
    await executor.drain()


class QuickInstance(ComputeOnly, HeldInstance):
    """Fast and waits for nothing; remembers which threads it ran on."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []

    def execute(self, batch: Batch) -> None:
        self.threads.append(threading.get_ident())
        super().execute(batch)


@pytest.mark.parametrize("width", [2, -1])
async def test_a_model_that_is_fast_comes_to_run_on_the_loop(
    make_executor: Make, width: int
) -> None:
    instance = QuickInstance()
    executor = make_executor(instance, signature=make_signature(dims=(width,)))
    while threading.get_ident() not in instance.threads:
        (sink,) = submit(executor, make_request("a", value=3))
        await sink.wait()
        assert (sink.responses[0].outputs[0].numpy() == 6).all()
    assert len(instance.threads) > FIRST_TRIAL


async def test_a_failure_on_the_loop_hurts_only_its_batch(make_executor: Make) -> None:
    instance = QuickInstance()
    executor = make_executor(instance)
    while not instance.threads or instance.threads[-1] != threading.get_ident():
        (sink,) = submit(executor, make_request("learning"))
        await sink.wait()
    instance.error = RuntimeError("swordfish")
    (failed,) = submit(executor, make_request("failed"))
    await failed.wait()
    instance.error = None
    (after,) = submit(executor, make_request("after"))
    await after.wait()
    assert isinstance(failed.error, BackendFailed)
    assert "swordfish" not in failed.error.message
    assert after.responses


class ByLength(HeldInstance):
    """Its requests are as long as their values say."""

    def length_of(self, request: CheckedRequest) -> int:
        return int(request.inputs["IN"].numpy()[0, 0])


async def test_requests_of_like_lengths_go_together_and_none_is_left_behind(
    make_executor: Make,
) -> None:
    instance = ByLength(held=True)
    executor = make_executor(instance, policy=LengthPolicy(40, 8), length_of=instance.length_of)
    lengths = (30, 10, 31, 12, 9, 200, 11)
    requests = [make_request(f"{length}", value=length) for length in lengths]
    first = submit(executor, requests[0])
    await asyncio.to_thread(instance.started.acquire)

    rest = submit(executor, *requests[1:])
    instance.release()
    await asyncio.gather(*(sink.wait() for sink in (*first, *rest)))

    assert instance.batches == [["30"], ["10", "9", "11"], ["31"], ["12"], ["200"]]
    answers = [sink.responses[0].outputs[0].numpy()[0, 0] for sink in (*first, *rest)]
    assert answers == [2 * length for length in lengths]


async def test_a_cancelled_or_late_request_is_not_computed_for_its_length(
    make_executor: Make,
) -> None:
    instance = ByLength(held=True)
    level = LevelPolicy(timeout_ns=1)
    executor = make_executor(
        instance, policy=LengthPolicy(40, 8), level=level, length_of=instance.length_of
    )
    submit(executor, make_request("first", value=10))
    await asyncio.to_thread(instance.started.acquire)
    late, gone = make_request("late", value=10), make_request("gone", value=10)

    sinks = submit(executor, late, gone)
    gone.cancel.cancel()
    await asyncio.gather(*(sink.wait() for sink in sinks))

    assert isinstance(sinks[0].error, QueueTimeout)
    assert isinstance(sinks[1].error, Cancelled | QueueTimeout)
    assert instance.batches == [["first"]]
