"""From opened instances to a servable model: the executor that its config asks for."""

from dataclasses import dataclass

from trivet.backends.api import Signature
from trivet.server.models.loader import Opened
from trivet.server.models.model import Model
from trivet.server.models.schedulers import schedule_of
from trivet.server.repository.scan import ModelFolder
from trivet.server.scheduling.batching import BatchingExecutor
from trivet.server.scheduling.reshape import Reshape
from trivet.server.statistics import ModelStatistics


@dataclass(frozen=True, slots=True)
class Assembler:
    """Builds executors."""

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
        schedule = schedule_of(config, self.default_queue_size, self.hold_until)
        executor = BatchingExecutor(
            (folder.name, version), signature, opened.instances, schedule, statistics
        )
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
