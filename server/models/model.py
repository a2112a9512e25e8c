"""One loaded version of a model: what the registry hands to the core."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trivet.backends.api import Executor, Signature
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.gpu_memory import LoadMemory
from trivet.server.repository.layout import Fingerprint
from trivet.server.scheduling.reshape import Reshape
from trivet.server.scheduling.statistics import ModelStatistics

Source = tuple[Fingerprint, Fingerprint]
"""The fingerprints of the config files and of the version folder."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A version that is or was ready. Its executor owns the instances and counts the requests."""

    name: str
    version: int
    config: ModelConfig
    signature: Signature
    executor: Executor
    statistics: ModelStatistics
    source: Source | None
    """What it was loaded from; None with a config that does not lie in the folder."""
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Class labels by output name, in index order."""
    reshape: Reshape | None = None
    gpu_memory: LoadMemory = field(default_factory=LoadMemory)
