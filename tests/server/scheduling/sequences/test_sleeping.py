"""A stateful model without instances: sequences that begin wait, open ones keep it awake."""

from collections.abc import AsyncIterator

import pytest
from fakes import CountingSink, HeldInstance, make_request, make_signature

from trivet.backends.api import ModelFiles, ModelNotReady
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.scheduling.sequences.executor import SequenceExecutor, SequenceSchedule
from trivet.server.scheduling.sequences.plan import SequencePlan
from trivet.server.scheduling.statistics import ModelStatistics


class Room:
    """An executor and the instances that it has had."""

    def __init__(self) -> None:
        self.instances = [HeldInstance()]
        self.wanted: list[tuple[str, ...]] = []
        config = ModelConfig(name="m", max_batch_size=4)
        config.sequence_batching.max_sequence_idle_microseconds = 60_000_000
        plan = SequencePlan.read(config, ModelFiles.__new__(ModelFiles))
        assert plan is not None
        self.executor = SequenceExecutor(
            ("m", 1),
            make_signature(max_batch_size=4),
            [("m_0_0", self.instances[0])],
            SequenceSchedule(plan),
            ModelStatistics("m", 1),
        )

    def ask(self, value: float, *, start: bool = False, end: bool = False) -> CountingSink:
        sink = CountingSink()
        request = make_request(
            value=value, sequence_id=7, sequence_start=start, sequence_end=end, callers=("asks",)
        )
        self.executor.submit(request, sink)
        return sink

    async def sleep(self) -> None:
        await self.executor.sleep(self.wanted.append)

    def wake(self) -> None:
        self.instances.append(HeldInstance())
        self.executor.wake([("m_0_0", self.instances[-1])])


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = Room()
    yield room
    await room.executor.close()
    assert all(each.is_closed for each in room.instances)


async def test_a_sequence_that_begins_waits_and_keeps_its_order(room: Room) -> None:
    await room.sleep()
    assert room.instances[0].is_closed
    assert room.executor.is_ready(), "it serves"
    sinks = [room.ask(1, start=True), room.ask(2), room.ask(3, end=True)]
    assert room.wanted == [("asks",)] * 3
    room.wake()
    for number, sink in enumerate(sinks, 1):
        await sink.wait()
        assert sink.error is None
        assert sink.responses[0].outputs[0].numpy().flat[0] == 2 * number
    assert not room.executor.use().is_busy


async def test_a_sequence_that_is_open_keeps_its_instance(room: Room) -> None:
    await room.ask(1, start=True).wait()
    assert room.executor.use().is_bound
    await room.sleep()
    assert not room.executor.is_asleep
    assert not room.instances[0].is_closed
    await room.ask(2, end=True).wait()
    assert not room.executor.use().is_bound


async def test_sequences_that_wait_are_over_where_it_does_not_wake(room: Room) -> None:
    await room.sleep()
    sinks = [room.ask(1, start=True), room.ask(2)]
    room.executor.stay_asleep(ModelNotReady("swordfish"))
    for sink in sinks:
        await sink.wait()
        assert isinstance(sink.error, ModelNotReady)
    assert not room.executor.is_ready()
    assert not room.executor.use().is_busy
