"""One request may be asked of two versions at the same time, as shadow requests are."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from fakes import CountingSink, HeldInstance
from made_models import made_model
from patience import patience
from values import frozen_values

from trivet.backends.api import (
    Batch,
    Cancelled,
    CopyKind,
    DataType,
    DeadlineExceeded,
    Execution,
    InferRequest,
    RequestContext,
    ServingError,
    Shape,
    Signature,
    Sink,
    Tensor,
    TensorSpec,
)
from trivet.server.models.check import submit
from trivet.server.models.registry import Registry
from trivet.server.models.routing import Choice
from trivet.server.scheduling.batching import BatchingExecutor, Schedule
from trivet.server.scheduling.policy import OneByOne
from trivet.server.scheduling.queue import LevelPolicy, QueuePolicy, RequestQueue
from trivet.server.scheduling.statistics import ModelStatistics


class Doubler(HeldInstance):
    """Doubles IN, whatever its shape, into the one output that it has; held until released."""

    def __init__(self, output: str) -> None:
        super().__init__(held=True)
        self.output = output
        self.shapes: list[Shape] = []

    def execute(self, batch: Batch) -> None:
        self.started.release()
        assert self._gate.wait(patience()), "the test never released the instance"
        values = batch.gather("IN")
        assert values is not None
        self.shapes.append(values.shape)
        batch.scatter(self.output, values * 2)


@dataclass
class Notes:
    """A `Trace` that keeps what it is told."""

    told: list[object] = field(default_factory=list)
    traceparent: str = ""

    def begin(self, request: InferRequest, version: int, inputs: Mapping[str, Tensor]) -> "Notes":
        self.told += [(version, tensor.shape) for tensor in inputs.values()]
        return self

    def ending(self, sink: Sink) -> Sink:
        return sink

    def executed(self, execution: Execution) -> None:
        self.told.append("executed")

    def copied(self, kind: CopyKind, size_bytes: int) -> None:
        self.told.append(kind)


class Site:
    """Two versions of one model. The first sees [2, 2] where clients give [4], and answers X; the
    second answers Y."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.instances = {1: Doubler("X"), 2: Doubler("Y")}
        self.executors: list[BatchingExecutor] = []
        for version, instance in self.instances.items():
            self._publish(version, instance)

    def _publish(self, version: int, instance: Doubler) -> None:
        shape = (2, 2) if version == 1 else (4,)
        given = TensorSpec("IN", DataType.FP32, (4,), shape)
        made = TensorSpec(instance.output, DataType.FP32, (4,), shape)
        signature = Signature({"IN": given}, {made.name: made}, 8, decoupled=False)
        queue = RequestQueue(QueuePolicy({0: LevelPolicy()}))
        executor = BatchingExecutor(
            ("m", version),
            signature,
            [(f"m_{version}", instance)],
            Schedule(queue, OneByOne()),
            ModelStatistics("m", version),
        )
        self.executors.append(executor)
        self.registry.publish(made_model("m", signature, executor, version=version))

    def ask(
        self, request: InferRequest, context: RequestContext, version: int | str | None = None
    ) -> CountingSink:
        admitted = self.registry.routers.resolve(request.model_name, version, request.key)
        sink = CountingSink()
        submit(admitted.model, request, context, sink)
        return sink

    def release(self) -> None:
        for instance in self.instances.values():
            instance.release()


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    with frozen_values():
        yield


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    yield site
    site.release()
    for executor in site.executors:
        await executor.close()


def asked() -> InferRequest:
    values = np.arange(4, dtype=np.float32).reshape(1, 4)
    return InferRequest("m", None, "r1", {"IN": Tensor.of("IN", values)})


async def test_one_request_runs_on_two_versions_at_once_and_each_answers_as_it_does(
    site: Site,
) -> None:
    request, notes = asked(), (Notes(), Notes())
    before = dict(request.inputs)

    sinks = [
        site.ask(request, RequestContext(trace=note), version)
        for version, note in zip((1, 2), notes, strict=True)
    ]
    for instance in site.instances.values():
        assert await asyncio.to_thread(instance.started.acquire, timeout=patience()), (
            "both are under way"
        )
    site.release()
    for sink in sinks:
        await sink.wait()

    answers = [sink.responses[0] for sink in sinks]
    assert [(each.model_version, each.id) for each in answers] == [(1, "r1"), (2, "r1")]
    for answer, name in zip(answers, ("X", "Y"), strict=True):
        (output,) = answer.outputs
        assert (output.name, output.numpy().tolist()) == (name, [[0, 2, 4, 6]])
    assert [site.instances[version].shapes for version in (1, 2)] == [[(1, 2, 2)], [(1, 4)]]
    assert [note.told for note in notes] == [
        [(1, (1, 2, 2)), "executed"],
        [(2, (1, 4)), "executed"],
    ]
    assert request.inputs == before


async def test_each_asking_ends_by_its_own_cancellation_or_deadline(site: Site) -> None:
    request = asked()
    busy = [site.ask(asked(), RequestContext(), version) for version in (1, 2)]
    for instance in site.instances.values():
        assert await asyncio.to_thread(instance.started.acquire, timeout=patience())
    gone, late, stays = RequestContext(), RequestContext(deadline=1e-6), RequestContext()

    sinks = [site.ask(request, gone, 1), site.ask(request, late, 2), site.ask(request, stays, 2)]
    gone.cancel.cancel()
    await sinks[0].wait()
    await sinks[1].wait()
    site.release()
    await sinks[2].wait()

    kinds: list[type[ServingError] | None] = [
        None if sink.error is None else type(sink.error) for sink in sinks
    ]
    assert kinds == [Cancelled, DeadlineExceeded, None]
    assert sinks[2].responses[0].model_version == 2
    for sink in busy:
        await sink.wait()


async def test_who_names_no_version_gets_the_newest_and_is_told_how_it_was_chosen(
    site: Site,
) -> None:
    resolve = site.registry.routers.resolve
    assert (resolve("m", None).version, resolve("m", None).choice) == (2, Choice.NEWEST)
    assert (resolve("m", 1).version, resolve("m", 1).choice) == (1, Choice.NAMED)
    assert resolve("m", None, "a") is resolve("m", None, "b"), "nothing is split"

    site.registry.withdraw("m", 2)
    assert resolve("m", None).version == 1


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (3, "version 3 is not found"),
        ("canary", "version string 'canary': a version is a positive decimal number"),
    ],
)
async def test_a_version_that_is_not_there_is_told(
    site: Site, version: int | str, text: str
) -> None:
    with pytest.raises(ServingError, match=text):
        site.registry.routers.resolve("m", version)
