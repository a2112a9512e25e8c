"""Versions that may sleep, over real executors: what opens their instances is the test's."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes import CountingSink, HeldInstance, make_request, make_signature
from google.protobuf import text_format
from patience import patience

from trivet.backends.api import Instance
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.loader import Opened
from trivet.server.models.model import Model
from trivet.server.models.sleeping.budget import Budget, MemoryTerms
from trivet.server.models.sleeping.residency import Residency
from trivet.server.models.sleeping.resident import Rest
from trivet.server.repository.layout import Fingerprint, ModelFolder
from trivet.server.scheduling.batching import BatchingExecutor, Schedule
from trivet.server.scheduling.policy import OneByOne
from trivet.server.scheduling.queue import LevelPolicy, QueuePolicy, RequestQueue
from trivet.server.scheduling.statistics import ModelStatistics


class SleepyOpener:
    """Opens instances of the sizes that it was told, and knows those that are open."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.estimates: dict[str, int] = {}
        """Of those whose files say something else."""
        self.opened: list[tuple[str, HeldInstance]] = []
        self.is_held = False
        """Whether new instances compute only once they are released."""
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        """Opening waits for it."""
        self.gate.set()
        self.num_opening = 0
        self.most_bytes = 0

    async def estimate(self, plan: LoadPlan, version: int) -> dict[int | None, int]:
        name = plan.folder.name
        return {None: self.estimates.get(name, self.sizes.get(name, 10))}

    async def open(self, plan: LoadPlan, version: int) -> Opened:
        self.num_opening += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        name = plan.folder.name
        instance = HeldInstance(held=self.is_held)
        self.opened.append((name, instance))
        size = self.sizes.get(name, 10)
        self.most_bytes = max(self.most_bytes, self.open_bytes)
        config = ModelConfig(name=name)
        return Opened(
            config, [(f"{name}_0_0", instance)], cpu_memory_bytes=size, sizes={None: size}
        )

    @property
    def open_bytes(self) -> int:
        return sum(self.sizes.get(name, 10) for name, each in self.opened if not each.is_closed)

    def instance(self, name: str) -> HeldInstance:
        """The last one of a model."""
        return [each for given, each in self.opened if given == name][-1]


class SleepyRoom:
    """A residency with its models and its clock."""

    def __init__(self, budget: int | None = None, idle_s: float = 0.0) -> None:
        self.opener = SleepyOpener()
        self.now_s = 100.0
        self.held: set[str] = set()
        limits = None if budget is None else Budget({None: budget})
        opener: Any = self.opener
        assembler: Any = _Connects()
        self.residency = Residency(
            opener, assembler, MemoryTerms(limits, idle_s),
            is_held=lambda key: key in self.held, clock=lambda: self.now_s,
        )  # fmt: skip
        self.models: dict[str, Model] = {}
        self.statistics: dict[str, ModelStatistics] = {}
        """They go on over loads."""

    async def load(
        self, name: str, parameters: str = "", queue_size: int = 0, files: Fingerprint = ()
    ) -> Model:
        given = text_format.Parse(f'name: "{name}"', ModelConfig())
        for pair in parameters.split():
            key, _, value = pair.partition("=")
            given.parameters[key].string_value = value
        folder = ModelFolder(name, Path("/nowhere"), (), {1: files})
        plan = LoadPlan(folder, given, (1,))
        await self.residency.load(plan, 1, lambda o: self._publish(name, queue_size, o))
        return self.models[name]

    def _publish(self, name: str, queue_size: int, opened: Opened) -> Model:
        signature = make_signature()
        statistics = self.statistics.setdefault(name, ModelStatistics(name, 1))
        statistics.takes(opened.cpu_memory_bytes, opened.gpu_memory.taken)
        queue = RequestQueue(QueuePolicy({0: LevelPolicy(queue_size)}))
        executor = BatchingExecutor(
            (name, 1), signature, opened.instances, Schedule(queue, OneByOne()), statistics
        )
        self.models[name] = Model(
            name, 1, opened.config, signature, executor, statistics, None, sleeps=executor
        )
        return self.models[name]

    def ask(self, name: str, **fields: Any) -> CountingSink:
        sink = CountingSink()
        self.models[name].executor.submit(make_request(name, **fields), sink)
        return sink

    def rest(self, name: str) -> Rest:
        resident = self.residency.rest_of(self.models[name])
        assert resident is not None
        return resident.rest

    def at_rest(self, rest: Rest) -> list[str]:
        return [name for name in self.models if self.rest(name) is rest]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(patience()):
            while not is_so():
                await asyncio.sleep(0.001)

    async def asleep(self, name: str) -> None:
        """Puts it to sleep, by hand."""
        await self.residency.sleep([self.models[name]])
        assert self.rest(name) is Rest.ASLEEP

    async def unload(self, name: str) -> None:
        model = self.models[name]
        await model.executor.drain()
        await model.executor.close()
        self.residency.ended(model)

    async def close(self) -> None:
        for _, instance in self.opener.opened:
            instance.release()
        self.residency.close()
        for model in self.models.values():
            await model.executor.close()
        assert [name for name, each in self.opener.opened if not each.is_closed] == []


class _Connects:
    """The part of an assembler that is asked."""

    def connected(
        self, plan: LoadPlan, opened: Opened, statistics: ModelStatistics
    ) -> list[tuple[str, Instance]]:
        return list(opened.instances)
