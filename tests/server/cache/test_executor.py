"""The caching executor: what it computes, what it does not, and how it ends."""

import asyncio
from collections.abc import Callable

import numpy as np
from fakes import CountingSink, make_request
from patience import patience

from trivet.backends.api import (
    BackendFailed,
    CheckedRequest,
    InferResponse,
    ServingError,
    Sink,
    Tensor,
    Unavailable,
)
from trivet.server.cache.entry import Entry, Found
from trivet.server.cache.executor import LARGE_BYTES, CachingExecutor
from trivet.server.cache.local import LocalCache
from trivet.server.scheduling.statistics import ModelStatistics


class Doubling:
    """An executor that answers at once, or fails; remembers whom."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.error: ServingError | None = None
        self.answer: Callable[[CheckedRequest, Sink], None] = self._double
        self.is_drained = False

    def submit(self, request: CheckedRequest, sink: Sink) -> None:
        self.ids.append(request.id)
        if self.error is not None:
            sink.fail(self.error)
        else:
            self.answer(request, sink)

    def _double(self, request: CheckedRequest, sink: Sink) -> None:
        values = Tensor.of("OUT", request.inputs["IN"].numpy() * 2)
        sink.send(InferResponse("m", 1, request.id, [values], {"seen": 1}), final=True)

    async def drain(self) -> None:
        self.is_drained = True

    async def close(self) -> None: ...

    def is_ready(self) -> bool:
        return True


class SlowCache(LocalCache):
    """Finds when it is told to."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.waiting: list[Callable[[], None]] = []

    def find(self, key: bytes, found: Found) -> None:
        self.waiting.append(lambda: found(None))


def caching(inner: Doubling, cache: LocalCache | None = None) -> CachingExecutor:
    statistics = ModelStatistics("m", 1)
    cache = cache if cache is not None else LocalCache(1 << 26)
    return CachingExecutor(("m", 1), inner, cache, lambda: b"digest", statistics)


async def ask(executor: CachingExecutor, request: CheckedRequest) -> CountingSink:
    sink = CountingSink()
    executor.submit(request, sink)
    await sink.wait()
    return sink


async def test_the_second_of_two_equal_requests_is_not_computed() -> None:
    inner = Doubling()
    executor = caching(inner)
    first, second = [await ask(executor, make_request(name, value=3)) for name in "ab"]
    assert inner.ids == ["a"]
    assert [sink.responses[0].id for sink in (first, second)] == ["a", "b"]
    for response in (first.responses[0], second.responses[0]):
        assert response.outputs[0].numpy().tolist() == [[6, 6]]
        assert response.parameters == {"seen": 1}


async def test_failures_are_not_kept() -> None:
    inner = Doubling()
    executor = caching(inner)
    inner.error = BackendFailed("no")
    assert (await ask(executor, make_request("a"))).error is inner.error
    inner.error = None
    assert (await ask(executor, make_request("b"))).responses
    assert inner.ids == ["a", "b"]


async def test_an_answer_in_parts_is_not_kept() -> None:
    inner = Doubling()

    def stream(request: CheckedRequest, sink: Sink) -> None:
        for final in (False, True):
            sink.send(InferResponse("m", 1, request.id, []), final=final)

    inner.answer = stream
    executor = caching(inner)
    for name in "ab":
        assert len((await ask(executor, make_request(name))).responses) == 2
    assert inner.ids == ["a", "b"]


async def test_large_inputs_are_told_apart_as_well() -> None:
    inner = Doubling()
    executor = caching(inner)
    width = LARGE_BYTES // 4
    for name, value in (("a", 1), ("b", 2), ("c", 1)):
        sink = await ask(executor, make_request(name, width=width, value=value))
        assert (sink.responses[0].outputs[0].numpy() == 2 * value).all()
    assert inner.ids == ["a", "b"]


async def test_draining_waits_for_lookups_and_lets_them_be_computed() -> None:
    inner, cache = Doubling(), SlowCache()
    executor = caching(inner, cache)
    sink = CountingSink()
    executor.submit(make_request("a"), sink)
    draining = asyncio.ensure_future(executor.drain())
    await asyncio.sleep(0)
    assert not inner.is_drained
    assert isinstance((await ask(executor, make_request("late"))).error, Unavailable)
    cache.waiting.pop()()
    await asyncio.wait_for(draining, patience())
    assert sink.responses
    assert inner.is_drained


async def test_a_model_that_writes_into_an_answer_does_not_reach_the_cache() -> None:
    inner = Doubling()
    cache = LocalCache(1 << 20)
    executor = caching(inner, cache)
    first = await ask(executor, make_request("a"))
    first.responses[0].outputs[0].numpy()[:] = 99
    second = await ask(executor, make_request("b"))
    assert second.responses[0].outputs[0].numpy().tolist() == [[2, 2]]
    entries: list[Entry | None] = []
    cache.find(b"unknown", entries.append)
    assert entries == [None]
    assert np.all(second.responses[0].outputs[0].numpy() == 2)
