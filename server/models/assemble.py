"""From opened instances to a servable model: the executor that its config asks for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from trivet.backends.api import (
    AsksFromThreads,
    AsksModels,
    Batch,
    BringsExecutor,
    CostsByLength,
    Executor,
    Instance,
    ModelServer,
    Observed,
    Signature,
    Sleeps,
)
from trivet.server.cache.caching import Caching
from trivet.server.models.asker import LoopAsker
from trivet.server.models.host_policy import pinned
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.loader import Opened
from trivet.server.models.model import Model
from trivet.server.models.observer import StatisticsObserver
from trivet.server.models.schedulers import schedule_of
from trivet.server.repository.config import instances as placements
from trivet.server.scheduling.batching import BatchingExecutor
from trivet.server.scheduling.dispatch import Dispatch
from trivet.server.scheduling.joining import MakeBatch
from trivet.server.scheduling.lengths import LengthPolicy
from trivet.server.scheduling.ragged import Ragged
from trivet.server.scheduling.rate_limit import RateLimiter, needs_of
from trivet.server.scheduling.reshape import Reshape
from trivet.server.scheduling.sequences.executor import SequenceExecutor, SequenceSchedule
from trivet.server.scheduling.statistics import ModelStatistics


class NamespacedServer(Protocol):
    """The server, for models of any namespace."""

    def within(self, namespace: str) -> ModelServer:
        """For a model of this one; empty without namespaces."""


@dataclass(frozen=True, slots=True)
class Assembler:
    """Builds executors."""

    server: NamespacedServer
    """For models that ask other models."""
    default_queue_size: int = 0
    """Requests that may wait per model and priority level where its config does not say; 0: any."""
    hold_until: int = 0
    """Test hook: batchers start nothing before so many requests are queued."""
    limiter: RateLimiter | None = None
    """With --rate-limit."""
    caching: Caching | None = None
    """With --cache-config."""

    def assemble(
        self, plan: LoadPlan, version: int, opened: Opened, statistics: ModelStatistics
    ) -> Model:
        """A model ready to be published. Called on the event loop."""
        name, config = plan.folder.name, opened.config
        signature = Signature.from_config(config)
        instances = self.connected(plan, opened, statistics)
        statistics.takes(opened.cpu_memory_bytes, opened.gpu_memory.taken)
        executor = self._executor((name, version), opened, instances, signature, statistics)
        sleeps = executor if isinstance(executor, Sleeps) else None
        if self.caching is not None:
            self.caching.model_changed()
            # Models of equal files may ask others by the same names, each in its namespace.
            digest = opened.digest + plan.folder.namespace.encode()
            executor = self.caching.wrap((name, version), config, digest, executor, statistics)
        return Model(
            name,
            version,
            config,
            signature,
            executor,
            statistics,
            plan.source_of(version),
            opened.labels,
            Reshape.of(signature),
            opened.gpu_memory,
            sleeps,
            plan.folder.namespace,
        )

    def connected(
        self, plan: LoadPlan, opened: Opened, statistics: ModelStatistics
    ) -> Sequence[tuple[str, Instance]]:
        """The instances as an executor takes them. Called on the event loop."""
        server = self.server.within(plan.folder.namespace)
        for _, instance in opened.instances:
            if isinstance(instance, AsksModels):
                instance.connect(server)
            if isinstance(instance, AsksFromThreads):
                instance.ask_through(LoopAsker(server))
            if isinstance(instance, Observed):
                instance.observe(StatisticsObserver(statistics))
        if isinstance(opened.instances[0][1], BringsExecutor):
            return opened.instances
        return pinned(opened.instances, opened.cores)

    def _executor(
        self,
        model: tuple[str, int],
        opened: Opened,
        instances: Sequence[tuple[str, Instance]],
        signature: Signature,
        statistics: ModelStatistics,
    ) -> Executor:
        (_, first), *others = opened.instances
        if isinstance(first, BringsExecutor):
            assert not others, "an instance that brings its executor is the only one"
            return first.make_executor()
        config = opened.config
        permits = None
        if self.limiter is not None:
            permits = self.limiter.admit(needs_of(config, placements(config)))
        ragged = Ragged.from_config(config)
        make_batch: MakeBatch = ragged.batch if ragged is not None else Batch
        dispatch = Dispatch(self.hold_until, permits, make_batch)
        if opened.sequences is not None:
            sequences = SequenceSchedule(opened.sequences, self.default_queue_size, dispatch)
            return SequenceExecutor(model, signature, instances, sequences, statistics)
        schedule = schedule_of(config, self.default_queue_size, dispatch)
        if ragged is not None:
            schedule = replace(schedule, part_size=0)
        if isinstance(first, CostsByLength):
            policy = LengthPolicy.of(first, config.dynamic_batching, signature.max_batch_size)
            schedule = replace(schedule, policy=policy, length_of=first.length_of, part_size=0)
        return BatchingExecutor(model, signature, instances, schedule, statistics)
