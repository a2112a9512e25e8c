"""Batches that are begun on the event loop: threads wait only for what is worth it."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from patience import patience
from python_models import Maker, make_config, make_request, outputs_of

from trivet.backends.api import Batch, CheckedRequest, InstanceDied, ServingError
from trivet.backends.api.value import changed
from trivet.backends.process.instance import ProcessInstance
from trivet.server.scheduling.worker import Job, Worker

SOURCE = """
class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        word = request.request_id()
        if word == "exit":
            os._exit(3)
        if word == "wait":
            while not request.is_cancelled():
                time.sleep(0.001)
        if word == "slow":
            time.sleep(0.1)  # several looks of the loop
        values = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        if word == "grow":
            values = np.repeat(values, 200_000)
        told = {"why": "x" * 300_000} if word == "talk" else None
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)], parameters=told)
"""

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Witness:
    """A process instance, and on which threads it was asked to execute."""

    def __init__(self, inner: ProcessInstance) -> None:
        self._inner = inner
        self.threads: list[int] = []

    def begin(
        self, batch: Batch, loop: asyncio.AbstractEventLoop, replied: Callable[[bool], None]
    ) -> bool:
        return self._inner.begin(batch, loop, replied)

    def execute(self, batch: Batch) -> None:
        self.threads.append(threading.get_ident())
        self._inner.execute(batch)

    def is_ready(self) -> bool:
        return self._inner.is_ready()

    def close(self) -> None:
        pass  # the maker does


class Served:
    """Has batches computed by a worker, one after another."""

    def __init__(self, inner: ProcessInstance) -> None:
        self.witness = Witness(inner)
        self._done: asyncio.Queue[Job] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self.worker = Worker("m_0_0", self.witness, loop, lambda _, job: self._done.put_nowait(job))

    def start(self, *requests: CheckedRequest) -> None:
        self.worker.start(Job(Batch(requests, batching=False), []))

    async def outcome(self) -> np.ndarray | ServingError:
        job = await asyncio.wait_for(self._done.get(), patience())
        return outputs_of(job.batch)["OUT"] if job.error is None else job.error

    async def computed(self, request: CheckedRequest) -> np.ndarray | ServingError:
        self.start(request)
        return await self.outcome()

    async def computed_here(self) -> None:
        """Until one is executed on the event loop: each that comes quickly lets the next be."""
        while self.were_here[-1:] != [True]:
            np.testing.assert_array_equal(await self.computed(ask()), [0, 1, 2])

    @property
    def were_here(self) -> list[bool]:
        """Whether the batches, one after another, were executed on the event loop."""
        return [ident == threading.get_ident() for ident in self.witness.threads]


def ask(word: str = "", size: int = 3) -> CheckedRequest:
    return changed(make_request(IN=np.arange(size, dtype=np.float32)), id=word)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessInstance]:
    maker = Maker(tmp_path_factory.mktemp("models"))
    yield opened(maker)
    maker.close()


def opened(maker: Maker) -> ProcessInstance:
    return cast(ProcessInstance, maker.open(SOURCE, make_config("IN:FP32", ">OUT:FP32")))


def num_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def served(instance: ProcessInstance) -> AsyncIterator[Served]:
    served = Served(instance)
    try:
        yield served
    finally:
        is_closed = await served.worker.close(patience())
    assert is_closed


async def test_small_and_quick_batches_need_no_thread(shared: ProcessInstance) -> None:
    async with served(shared) as model:
        await model.computed_here()


async def test_what_is_long_in_coming_is_waited_for_by_the_thread(shared: ProcessInstance) -> None:
    async with served(shared) as model:
        await model.computed_here()
        np.testing.assert_array_equal(await model.computed(ask("slow")), [0, 1, 2])
        assert not model.were_here[-1]
        await model.computed_here()


@pytest.mark.parametrize(
    "request_", [ask(size=100_000), ask("grow"), ask("talk")], ids=["batch", "answer", "parameters"]
)
async def test_what_is_large_is_for_the_thread(
    shared: ProcessInstance, request_: CheckedRequest
) -> None:
    async with served(shared) as model:
        await model.computed_here()
        outcome = await model.computed(request_)
        assert isinstance(outcome, np.ndarray)
        assert outcome.size in (100_000, 600_000, 3)
        assert not model.were_here[-1]
        await model.computed_here()


async def test_without_a_descriptor_the_thread_waits(
    shared: ProcessInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async with served(shared) as model:
        await model.computed(ask("slow"))  # what it watched by is closed
        with monkeypatch.context() as full:
            full.setattr(os, "dup", refuse)
            for _ in range(3):
                np.testing.assert_array_equal(await model.computed(ask()), [0, 1, 2])
            assert True not in model.were_here
        await model.computed_here()


async def test_a_request_that_waits_sees_its_cancellation(shared: ProcessInstance) -> None:
    async with served(shared) as model:
        request = ask("wait")
        model.start(request)
        await asyncio.sleep(0)
        request.cancel.cancel()
        np.testing.assert_array_equal(await model.outcome(), [0, 1, 2])


async def test_a_batch_in_progress_ends_before_its_worker(shared: ProcessInstance) -> None:
    async with served(shared) as model:
        model.start(ask())
        assert await model.worker.close(patience())
        np.testing.assert_array_equal(await model.outcome(), [0, 1, 2])


async def test_a_slow_batch_in_progress_ends_before_its_worker(shared: ProcessInstance) -> None:
    model = Served(shared)
    model.start(ask("slow"))
    assert await model.worker.close(patience())
    np.testing.assert_array_equal(await model.outcome(), [0, 1, 2])


async def test_a_death_is_told_and_the_next_process_computes(maker: Maker) -> None:
    async with served(opened(maker)) as model:
        for _ in range(2):
            np.testing.assert_array_equal(await model.computed(ask()), [0, 1, 2])
            died = await model.computed(ask("exit"))
            assert isinstance(died, InstanceDied)
            assert "exit code 3" in died.message
        np.testing.assert_array_equal(await model.computed(ask()), [0, 1, 2])
        assert False in model.were_here, "the loop must not wait for the end of a process"


async def test_a_closed_instance_leaves_no_descriptor(maker: Maker) -> None:
    instance = opened(maker)
    maker.close(instance)
    num_before = num_descriptors()
    instance = opened(maker)
    async with served(instance) as model:
        await model.computed_here()
        await asyncio.to_thread(maker.close, instance)
        await asyncio.sleep(0)
        assert num_descriptors() == num_before
