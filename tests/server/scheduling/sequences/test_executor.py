"""The sequence executor: order within a sequence, its instance for life, and every kind of end."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from fakes import CountingSink, HeldInstance, make_request, make_signature
from google.protobuf import text_format
from patience import fires_after, patience

from trivet.backends.api import (
    BackendFailed,
    Batch,
    Cancelled,
    CheckedRequest,
    DeadlineExceeded,
    InstanceDied,
    InvalidRequest,
    ModelFiles,
    QueueFull,
    QueueTimeout,
    Unavailable,
    Window,
)
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.protos.pool import POOL
from trivet.server.scheduling.dispatch import Dispatch
from trivet.server.scheduling.pool import STOPPING
from trivet.server.scheduling.sequences.executor import SequenceExecutor, SequenceSchedule
from trivet.server.scheduling.sequences.plan import SequencePlan
from trivet.server.scheduling.statistics import ModelStatistics

OLDEST = "oldest { max_candidate_sequences: 64 }"
ONE_SLOT = "oldest { max_candidate_sequences: 1 }"
Make = Callable[..., SequenceExecutor]


class Recorder(HeldInstance):
    """Remembers what it was given: per batch (sequence, value, is_start, is_end) of each row."""

    def __init__(self, *, held: bool = False) -> None:
        super().__init__(held=held)
        self.rows: list[list[tuple[int | str, float, bool, bool]]] = []
        self.wants_again: Callable[[CheckedRequest], bool] = lambda _: False

    def execute(self, batch: Batch) -> None:
        self.rows.append(
            [
                (r.sequence_id, r.inputs["IN"].numpy().flat[0], r.sequence_start, r.sequence_end)
                for r in batch.requests
            ]
        )
        super().execute(batch)
        for index, request in enumerate(batch.requests):
            if self.wants_again(request):
                batch.reschedule(index)


def plan_of(text: str, max_batch_size: int) -> SequencePlan:
    config = ModelConfig(name="m", max_batch_size=max_batch_size)
    batching = f"sequence_batching {{ max_sequence_idle_microseconds: 60000000 {text} }}"
    text_format.Merge(batching, config, descriptor_pool=POOL)
    plan = SequencePlan.read(config, ModelFiles.__new__(ModelFiles))
    assert plan is not None
    return plan


@pytest.fixture
async def make_executor() -> AsyncIterator[Make]:
    """Builds executors and checks at the end that none holds a request or a sequence."""
    made: list[SequenceExecutor] = []

    def make(
        *instances: HeldInstance,
        text: str = OLDEST,
        max_batch_size: int = 4,
        max_waiting: int = 0,
        hold_until: int = 0,
    ) -> SequenceExecutor:
        executor = SequenceExecutor(
            ("m", 1),
            make_signature(max_batch_size=max_batch_size),
            [(f"m_0_{number}", instance) for number, instance in enumerate(instances)],
            SequenceSchedule(plan_of(text, max_batch_size), max_waiting, Dispatch(hold_until)),
            ModelStatistics("m", 1),
        )
        made.append(executor)
        return executor

    yield make
    for executor in made:
        for seat in executor._seats:
            if isinstance(seat.worker.instance, HeldInstance):  # else it is closed
                seat.worker.instance.release()
        await asyncio.wait_for(executor.drain(), patience())
        await asyncio.wait_for(executor.finish_sequences(), patience())
        await executor.close()
        assert len(executor._queue) == 0
        assert executor._queue._statistics.pending == 0
        counts = executor._queue._statistics.sequences
        assert counts is not None
        assert (counts.num_open, counts.num_waiting) == (0, 0)


def step(
    sequence_id: int | str,
    value: float = 1,
    *,
    start: bool = False,
    end: bool = False,
    **fields: Any,
) -> CheckedRequest:
    return make_request(
        f"{sequence_id}-{value}",
        value=value,
        sequence_id=sequence_id,
        sequence_start=start,
        sequence_end=end,
        **fields,
    )


def submit(executor: SequenceExecutor, *requests: CheckedRequest) -> list[CountingSink]:
    sinks = [CountingSink() for _ in requests]
    for request, sink in zip(requests, sinks, strict=True):
        executor.submit(request, sink)
    return sinks


async def finished(sinks: list[CountingSink]) -> list[float | type]:
    """What each sink got: the value or the kind of error."""
    for sink in sinks:
        await sink.wait()
    return [
        type(sink.error) if sink.error else sink.responses[0].outputs[0].numpy().flat[0]
        for sink in sinks
    ]


async def started(instance: HeldInstance) -> None:
    assert await asyncio.to_thread(instance.started.acquire, timeout=patience())


async def test_one_batch_has_at_most_one_request_of_a_sequence(make_executor: Make) -> None:
    instance = Recorder()
    executor = make_executor(instance)
    requests = [step(key, n, start=n == 1, end=n == 3) for n in (1, 2, 3) for key in ("a", "b")]
    assert await finished(submit(executor, *requests)) == [2, 2, 4, 4, 6, 6]
    assert [[row[0] for row in rows] for rows in instance.rows] == [["a", "b"]] * 3
    assert [rows[0][1:] for rows in instance.rows] == [
        (1, True, False),
        (2, False, False),
        (3, False, True),
    ]


async def test_direct_gives_the_model_placeholders_for_slots_without_a_request(
    make_executor: Make,
) -> None:
    instance = Recorder()
    executor = make_executor(instance, text="direct {}")
    keys = (1, 2, 3)
    await finished(submit(executor, *(step(key, start=True) for key in keys)))
    assert await finished(submit(executor, step(3, 5))) == [10]
    assert [row[0] for row in instance.rows[1]] == [0, 0, 3]
    assert executor._queue._statistics.batches.keys() == {3, 1}


async def test_a_sequence_stays_on_its_instance(make_executor: Make) -> None:
    instances = [Recorder(), Recorder(), Recorder()]
    executor = make_executor(*instances)
    keys = range(1, 13)
    for n in range(1, 6):
        await finished(submit(executor, *(step(key, n, start=n == 1) for key in keys)))
    homes = [{row[0] for rows in instance.rows for row in rows} for instance in instances]
    assert [len(home) for home in homes] == [4, 4, 4]
    assert set.union(*homes) == set(keys)


async def test_what_is_in_no_sequence_is_refused_with_its_id(make_executor: Make) -> None:
    executor = make_executor(Recorder())
    (sink,) = submit(executor, step(7))
    assert isinstance(sink.error, InvalidRequest)
    assert sink.error.message == (
        "[request id: 7-1] inference request for sequence 7 to model 'm' must specify the START "
        "flag on the first request of the sequence"
    )


async def test_a_second_start_begins_anew_behind_what_waits(
    make_executor: Make, caplog: pytest.LogCaptureFixture
) -> None:
    instance = Recorder()
    executor = make_executor(instance)
    sinks = submit(executor, step("a", 1, start=True), step("a", 2), step("a", 3, start=True))
    assert await finished(sinks) == [2, 4, 6]
    assert [rows[0][2] for rows in instance.rows] == [True, False, True]
    assert "starts again before its END" in caplog.text


async def test_an_id_may_be_used_again_before_its_end_has_run(make_executor: Make) -> None:
    instance = Recorder(held=True)
    executor = make_executor(instance)
    sinks = submit(executor, step("a", 1, start=True), step("a", 2, end=True))
    sinks += submit(executor, step("a", 3, start=True), step("a", 4, end=True))
    instance.release()
    assert await finished(sinks) == [2, 4, 6, 8]


async def test_the_backlog_is_served_in_order_as_slots_free_up(make_executor: Make) -> None:
    instance = Recorder()
    executor = make_executor(instance, text=ONE_SLOT)
    flags = [(1, True, False), (2, False, True)]
    requests = [step(key, n, start=s, end=e) for key in "abc" for n, s, e in flags]
    await finished(submit(executor, *requests))
    assert [rows[0][0] for rows in instance.rows] == ["a", "a", "b", "b", "c", "c"]


async def test_sequences_are_counted_by_where_they_are_and_how_they_ended(
    make_executor: Make,
) -> None:
    instance = Recorder(held=True)
    executor = make_executor(instance, text=ONE_SLOT)
    requests = [step(key, start=True, end=key == "a") for key in "abcd"]
    sinks = submit(executor, *requests)
    counts = executor._queue._statistics.sequences
    assert counts is not None
    assert (counts.num_open, counts.num_waiting) == (4, 3)
    requests[1].cancel.cancel()
    assert (counts.num_open, counts.num_waiting) == (3, 2)
    instance.release()
    await finished(sinks[:3])
    assert (counts.num_open, counts.num_waiting) == (2, 1)
    await executor.close()
    await finished(sinks)
    assert {how.value: count for how, count in counts.ended.items() if count} == {
        "completed": 1,
        "cut": 1,
        "unloaded": 2,
    }


async def test_the_timeout_of_a_request_is_for_the_wait_for_a_slot(make_executor: Make) -> None:
    executor = make_executor(Recorder(), text=ONE_SLOT)
    first = step("a", start=True, timeout_us=1)
    late, mate = step("b", start=True, timeout_us=1), step("b")
    sinks = submit(executor, first, late, mate)
    assert await finished(sinks) == [2, QueueTimeout, Cancelled]
    assert sinks[1].error is not None
    assert "timeout of the corresponding sequence has been expired" in sinks[1].error.message
    assert await finished(submit(executor, step("a", 2, end=True))) == [4]


async def test_cancelling_a_waiting_request_ends_its_sequence_and_no_other(
    make_executor: Make,
) -> None:
    instance = Recorder(held=True)
    executor = make_executor(instance)
    requests = [step(key, n, start=n == 1) for key in "ab" for n in (1, 2, 3)]
    sinks = submit(executor, *requests)
    await started(instance)
    requests[1].cancel.cancel()
    instance.release()
    assert await finished(sinks) == [2, Cancelled, Cancelled, 2, 4, 6]
    assert await finished(submit(executor, step("a", 4))) == [InvalidRequest]


async def test_a_request_cancelled_while_it_runs_leaves_its_sequence(make_executor: Make) -> None:
    instance = Recorder(held=True)
    executor = make_executor(instance)
    requests = [step("a", 1, start=True), step("a", 2)]
    sinks = submit(executor, *requests)
    await started(instance)
    requests[0].cancel.cancel()
    instance.release()
    assert await finished(sinks) == [Cancelled, 4]


async def test_a_deadline_that_passes_in_the_queue_ends_the_sequence(make_executor: Make) -> None:
    instance = Recorder(held=True)
    executor = make_executor(instance)
    late = step("a", 2, deadline=time.monotonic() + fires_after(0.01))
    requests = [step("a", 1, start=True), late, step("a", 3)]
    sinks = submit(executor, *requests)
    await sinks[1].wait()
    instance.release()
    assert await finished(sinks) == [2, DeadlineExceeded, Cancelled]
    assert await finished(submit(executor, step("a", 4))) == [InvalidRequest]


async def test_the_queue_has_a_limit_beyond_the_slots(make_executor: Make) -> None:
    instance = Recorder(held=True)
    executor = make_executor(instance, text=ONE_SLOT, max_waiting=2)
    sinks = submit(executor, step("a", 1, start=True))
    await started(instance)
    sinks += submit(executor, *(step("a", n) for n in range(2, 6)))
    assert isinstance(sinks[-1].error, QueueFull)
    instance.release()
    assert await finished(sinks) == [2, 4, 6, 8, QueueFull]


async def test_sequences_of_a_dead_instance_are_over_others_go_on(make_executor: Make) -> None:
    dying, living = Recorder(held=True), Recorder()
    executor = make_executor(dying, living)
    sinks = submit(executor, step("a", start=True), step("b", start=True), step("a", 2))
    await started(dying)
    dying.error = InstanceDied("m_0_0 died while executing")
    dying.release()
    assert await finished(sinks) == [InstanceDied, 2, InstanceDied]
    dying.error = None
    again = submit(executor, step("a", 3), step("b", 3), step("a", 4, start=True))
    assert await finished(again) == [InvalidRequest, 6, 8]


async def test_a_failing_batch_leaves_its_sequences(make_executor: Make) -> None:
    instance = Recorder()
    executor = make_executor(instance)
    instance.error = BackendFailed("no")
    assert await finished(submit(executor, step("a", start=True))) == [BackendFailed]
    instance.error = None
    assert await finished(submit(executor, step("a", 2, end=True))) == [4]


async def test_while_draining_running_sequences_may_finish(make_executor: Make) -> None:
    executor = make_executor(Recorder())
    await finished(submit(executor, step("a", start=True)))
    finishing = asyncio.ensure_future(executor.finish_sequences())
    await asyncio.sleep(0)
    (refused,) = submit(executor, step("b", start=True))
    assert isinstance(refused.error, Unavailable)
    assert STOPPING in refused.error.message
    assert await finished(submit(executor, step("a", 2), step("a", 3, end=True))) == [4, 6]
    await asyncio.wait_for(finishing, patience())


async def test_draining_ends_sequences_whose_next_request_has_not_come(
    make_executor: Make,
) -> None:
    instance = Recorder(held=True)
    executor = make_executor(instance)
    sinks = submit(executor, step("a", start=True), step("a", 2))
    draining = asyncio.ensure_future(executor.drain())
    await started(instance)
    instance.release()
    await asyncio.wait_for(draining, patience())
    assert await finished(sinks) == [2, 4]
    assert await finished(submit(executor, step("a", 3))) == [InvalidRequest]


async def test_closing_fails_what_waits_and_says_why(make_executor: Make) -> None:
    instance = Recorder(held=True)
    executor = make_executor(instance)
    sinks = submit(executor, step("a", start=True), step("a", 2))
    await started(instance)
    closing = asyncio.ensure_future(executor.close())
    await sinks[1].wait()
    instance.release()
    await closing
    assert await finished(sinks) == [2, Unavailable]
    assert "being unloaded" in str(sinks[1].error)


async def test_a_successor_passes_requests_of_old_sequences_on(make_executor: Make) -> None:
    old, new = Recorder(), Recorder()
    old_executor, executor = make_executor(old), make_executor(new)
    await finished(submit(old_executor, step("a", start=True)))
    executor.inherit(old_executor)
    assert await finished(submit(executor, step("a", 2), step("b", 5, start=True))) == [4, 10]
    assert await finished(submit(executor, step("a", 3, end=True), step("b", 6))) == [6, 12]
    assert {row[0] for rows in new.rows for row in rows} == {"b"}
    assert await finished(submit(executor, step("a", 7, start=True))) == [14]
    assert new.rows[-1][0][0] == "a"


async def test_old_sequences_are_found_over_several_successors(make_executor: Make) -> None:
    executors = [make_executor(Recorder()) for _ in range(3)]
    await finished(submit(executors[0], step("a", start=True)))
    for old, new in itertools.pairwise(executors):
        new.inherit(old)
    assert await finished(submit(executors[2], step("a", 2, end=True))) == [4]
    assert await finished(submit(executors[2], step("a", 3))) == [InvalidRequest]


async def test_an_iterative_request_runs_until_the_model_has_enough(make_executor: Make) -> None:
    instance = Recorder()
    passes = {"x": 5, "y": 2}
    instance.wants_again = lambda request: (
        passes.update({request.id: passes[request.id] - 1}) or passes[request.id] > 0
    )
    executor = make_executor(instance, text=f"iterative_sequence: true {OLDEST}")
    requests = [make_request(name, value=n) for n, name in enumerate(passes, 1)]
    assert await finished(submit(executor, *requests)) == [2, 4]
    assert [len(rows) for rows in instance.rows] == [2, 2, 1, 1, 1]
    assert [row[2] for rows in instance.rows for row in rows] == [True, True, *[False] * 5]


async def test_a_cancelled_iterative_request_stops_after_its_pass(make_executor: Make) -> None:
    instance = Recorder(held=True)
    instance.wants_again = lambda _: True
    executor = make_executor(instance, text=f"iterative_sequence: true {OLDEST}")
    request = make_request("x")
    (sink,) = submit(executor, request)
    await started(instance)
    request.cancel.cancel()
    instance.release()
    assert await finished([sink]) == [Cancelled]
    assert len(instance.rows) == 1


async def test_nothing_starts_before_the_test_hook_s_number_of_requests(
    make_executor: Make,
) -> None:
    instance = Recorder()
    executor = make_executor(instance, hold_until=3)
    sinks = submit(executor, step("a", start=True), step("b", start=True))
    for _ in range(3):
        await asyncio.sleep(0)
    assert instance.rows == []
    sinks += submit(executor, step("c", start=True))
    await finished(sinks)
    assert [len(rows) for rows in instance.rows] == [3]


@pytest.mark.parametrize("text", ["direct {}", ONE_SLOT, "oldest { max_candidate_sequences: 3 }"])
async def test_thousands_of_random_requests_each_end_once_and_in_order(
    make_executor: Make, text: str
) -> None:
    instances = [Recorder(), Recorder()]
    executor = make_executor(*instances, text=text)
    random = np.random.default_rng(5)
    sent: dict[int, list[CountingSink]] = {}
    number = itertools.count(1)
    live: dict[int, int] = {}
    for _ in range(3000):
        if len(live) < 12 and random.random() < 0.3:
            live[next(number)] = 0
        if not live:
            continue
        key = int(random.choice(list(live)))
        live[key] += 1
        is_end = bool(random.random() < 0.2)
        request = step(key, live[key], start=live[key] == 1, end=is_end)
        sent.setdefault(key, []).extend(submit(executor, request))
        if is_end:
            del live[key]
        if random.random() < 0.02:
            request.cancel.cancel()
        if random.random() < 0.3:
            await asyncio.sleep(0)
    # What has not ended holds its slot; the rest must get through.
    for key in sent.keys() & live.keys():
        sent[key] += submit(executor, step(key, live[key] + 1, end=True))
    await finished([sink for sinks in sent.values() for sink in sinks])
    homes = [dict(_values(instance)) for instance in instances]
    assert homes[0].keys().isdisjoint(homes[1].keys())
    for values in (*homes[0].values(), *homes[1].values()):
        assert values == sorted(values)
        assert values == list(range(1, len(values) + 1))


def _values(instance: Recorder) -> dict[int | str, list[float]]:
    found: dict[int | str, list[float]] = {}
    for rows in instance.rows:
        keys = [row[0] for row in rows if row[0]]
        assert len(keys) == len(set(keys))
        for key, value, _, _ in rows:
            if key:
                found.setdefault(key, []).append(value)
    return found


class Keeper(HeldInstance):
    """Remembers the requests that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[CheckedRequest] = []

    def execute(self, batch: Batch) -> None:
        self.requests += batch.requests
        super().execute(batch)


async def test_the_model_is_given_on_whose_behalf_it_computes(make_executor: Make) -> None:
    """What it asks of others is of that tenant, is paid by him, and may not ask those who ask."""
    instance, window, charged = Keeper(), Window(1), list[int]()
    executor = make_executor(instance)
    account: dict[str, Any] = {"tenant": "acme", "on_tokens": charged.append, "callers": ("chat",)}
    asked = step("a", start=True, end=True, window=window, **account)

    await finished(submit(executor, asked))

    (given,) = instance.requests
    assert (given.tenant, given.on_tokens, given.callers) == ("acme", asked.on_tokens, ("chat",))
    assert given.window is window
