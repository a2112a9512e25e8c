"""A language model without an engine: requests wait for one, each with exactly one end."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from patience import fires_after, patience

from trivet.backends.api import (
    Cancelled,
    CancelToken,
    Cause,
    Chunk,
    DeadlineExceeded,
    GenerateRequest,
    ModelNotReady,
    NotFound,
    QueueFull,
    Sampling,
    ServingError,
)
from trivet.backends.llm.messages import FrameReader, Output, Outputs, Submit, pack
from trivet.backends.llm.serving.executor import LlmExecutor
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.process.ending import Ending

INFO = {
    "max_model_len": 64, "vocabulary_size": 100, "max_logprobs": 0, "dtype": "float32",
    "architecture": "Fake", "eos_token_ids": (2,), "max_num_requests": 3,
}  # fmt: skip


class FakeEngine:
    """Loaded, at the other end of a socket, which the test holds."""

    def __init__(self) -> None:
        self.name = "fake"
        self.info: dict[str, Any] = dict(INFO)
        self.early: tuple[()] = ()
        self.socket, self.theirs = socket.socketpair()
        self.theirs.settimeout(patience())
        self.was_killed = False
        self._reader = FrameReader()

    def received(self) -> list[str]:
        """Prompts of the requests that have come, as soon as any has."""
        messages = self._reader.feed(self.theirs.recv(1 << 16))
        return [str(each.prompt_ids[0]) for each in messages if isinstance(each, Submit)]

    def answer(self, request_id: str) -> None:
        outputs = [Output(request_id, [5], "length")]
        self.theirs.send(pack(Outputs(outputs, {})))

    def is_running(self) -> bool:
        return not self.was_killed

    def look(self) -> None: ...

    def memory_bytes(self) -> int:
        return 0

    def kill(self) -> None:
        self.was_killed = True
        self.socket.close()

    def ending(self) -> Ending:
        return Ending(Cause.SIGNAL, "killed")

    def take_engine(self) -> "FakeEngine":
        return self


@dataclass
class Sink:
    """Asserts that there is exactly one end."""

    error: ServingError | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def chunk(self, chunk: Chunk) -> None:
        if chunk.finish is not None:
            self._end()

    def fail(self, error: ServingError) -> None:
        self.error = error
        self._end()

    def _end(self) -> None:
        assert not self.ended.is_set(), "a request ended twice"
        self.ended.set()

    async def wait(self) -> None:
        async with asyncio.timeout(patience()):
            await self.ended.wait()


class Speaks:
    """The part of a model that knows texts."""

    def __init__(self) -> None:
        within = SimpleNamespace(decode=lambda ids, *, skip_special_tokens: "x" * len(ids))
        self.tokenizer = SimpleNamespace(within_text=within, is_special=lambda _: False)

    def message(self, request: GenerateRequest, request_id: str, adapter: str) -> Submit:
        return Submit(request_id, list(request.prompt_ids), request.sampling, 0, [], [])


class Room:
    """An executor and the engines that it has had."""

    def __init__(self) -> None:
        self.engines = [FakeEngine()]
        speaks: Any = Speaks()
        self._speaks = speaks
        self.num_wanted = 0
        settings = EngineSettings("", in_process=True)
        engine: Any = self.engines[0]
        self.executor = LlmExecutor("fake", 1, engine, settings, speaks.tokenizer, None)

    def ask(self, number: int, **more: Any) -> Sink:
        sink = Sink()
        request = GenerateRequest(f"{number}", [number], Sampling(max_tokens=1), **more)
        self.executor.run(request, sink, self._speaks)
        return sink

    async def sleep(self) -> None:
        def wanted(_callers: tuple[str, ...]) -> None:
            self.num_wanted += 1

        await self.executor.sleep(wanted)

    def wake(self) -> FakeEngine:
        self.engines.append(FakeEngine())
        instance: Any = self.engines[-1]
        self.executor.wake([("fake_0_0", instance)])
        return self.engines[-1]


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = Room()
    yield room
    await room.executor.close()
    for engine in room.engines:
        assert engine.was_killed
        engine.theirs.close()


async def test_what_comes_while_it_sleeps_waits_for_the_next_engine(room: Room) -> None:
    await room.sleep()
    assert room.engines[0].was_killed
    assert room.executor.is_ready(), "it serves"
    sinks = [room.ask(7), room.ask(8)]
    assert room.num_wanted == 2
    engine = room.wake()
    assert await asyncio.to_thread(engine.received) == ["7", "8"]
    for request_id in ("1", "2"):
        engine.answer(request_id)
    for sink in sinks:
        await sink.wait()
        assert sink.error is None


async def test_what_has_begun_ends_before_the_engine_does(room: Room) -> None:
    begun = room.ask(7)
    falling = asyncio.create_task(room.sleep())
    await asyncio.sleep(0)
    late = room.ask(8)
    assert not falling.done()
    assert not room.engines[0].was_killed
    room.engines[0].answer("1")
    await begun.wait()
    await falling
    assert begun.error is None
    assert room.engines[0].was_killed
    assert await asyncio.to_thread(room.wake().received) == ["8"]
    assert not late.ended.is_set()


async def test_who_leaves_or_is_too_late_is_not_computed(room: Room) -> None:
    await room.sleep()
    cancel = CancelToken()
    gone = room.ask(7, cancel=cancel)
    late = room.ask(8, deadline=time.monotonic() + fires_after(0.02))
    stays = room.ask(9)
    cancel.cancel()
    await gone.wait()
    await late.wait()
    assert isinstance(gone.error, Cancelled)
    assert isinstance(late.error, DeadlineExceeded)
    assert await asyncio.to_thread(room.wake().received) == ["9"]
    assert not stays.ended.is_set()


async def test_no_more_wait_than_an_engine_takes(room: Room) -> None:
    await room.sleep()
    for number in (7, 8, 9):
        room.ask(number)
    refused = room.ask(10)
    await refused.wait()
    assert isinstance(refused.error, QueueFull)


async def test_all_that_wait_end_where_it_does_not_wake(room: Room) -> None:
    await room.sleep()
    sinks = [room.ask(7), room.ask(8)]
    room.executor.stay_asleep(ModelNotReady("swordfish"))
    for sink in sinks:
        await sink.wait()
        assert isinstance(sink.error, ModelNotReady)
    assert not room.executor.is_ready()
    assert room.executor.trouble() == "swordfish"
    room.wake()
    assert room.executor.is_ready()


async def test_a_model_that_is_unloaded_while_it_sleeps_ends_what_waits(room: Room) -> None:
    await room.sleep()
    sink = room.ask(7)
    await room.executor.close()
    await sink.wait()
    assert sink.error is not None


async def test_who_loads_an_adapter_is_waited_for_by_it(room: Room) -> None:
    """Or nobody would wake it for him."""
    await room.sleep()
    assert not room.executor.use().is_busy
    loads = asyncio.create_task(room.executor.load_adapter("own", "own", in_place=False))
    await asyncio.sleep(0)
    assert room.num_wanted == 1
    assert room.executor.use().is_busy
    room.wake()
    with pytest.raises(NotFound):
        await loads
