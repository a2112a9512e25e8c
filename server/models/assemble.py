"""From opened instances to a servable model: the executor that its config asks for."""

from dataclasses import dataclass

from trivet.backends.api import AsksModels, BringsExecutor, Executor, Runner, Signature
from trivet.server.models.loader import Opened
from trivet.server.models.model import Model
from trivet.server.models.schedulers import schedule_of
from trivet.server.repository.scan import ModelFolder
from trivet.server.scheduling.batching import BatchingExecutor
from trivet.server.scheduling.reshape import Reshape
from trivet.server.scheduling.sequences.executor import SequenceExecutor, SequenceSchedule
from trivet.server.statistics import ModelStatistics


@dataclass(frozen=True, slots=True)
class Assembler:
    """Builds executors."""

    runner: Runner
    """For models that ask other models."""
    default_queue_size: int = 0
    """Requests that may wait per model and priority level where its config does not say; 0: any."""
    hold_until: int = 0
    """Test hook: batchers start nothing before so many requests are queued."""

    def assemble(
        self, folder: ModelFolder, version: int, opened: Opened, statistics: ModelStatistics
    ) -> Model:
        """A model ready to be published. Called on the event loop."""
        config = opened.config
        signature = Signature.from_config(config)
        for _, instance in opened.instances:
            if isinstance(instance, AsksModels):
                instance.connect(self.runner)
        executor = self._executor(folder.name, version, opened, signature, statistics)
        return Model(
            folder.name,
            version,
            config,
            signature,
            executor,
            statistics,
            (folder.config, folder.versions[version]),
            opened.labels,
            Reshape.of(signature),
        )

    def _executor(
        self,
        name: str,
        version: int,
        opened: Opened,
        signature: Signature,
        statistics: ModelStatistics,
    ) -> Executor:
        (_, first), *others = opened.instances
        if isinstance(first, BringsExecutor):
            assert not others, "an instance that brings its executor is the only one"
            return first.make_executor()
        if opened.sequences is not None:
            sequences = SequenceSchedule(opened.sequences, self.default_queue_size, self.hold_until)
            model = (name, version)
            return SequenceExecutor(model, signature, opened.instances, sequences, statistics)
        schedule = schedule_of(opened.config, self.default_queue_size, self.hold_until)
        return BatchingExecutor((name, version), signature, opened.instances, schedule, statistics)
