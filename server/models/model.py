"""One loaded version of a model: what the registry hands to the core."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from trivet.backends.api import Adapting, Executor, Measured, Signature, Sleeps, Supervised
from trivet.backends.api.adapting import SEPARATOR
from trivet.backends.api.naming import key_of
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.gpu_memory import LoadMemory
from trivet.server.repository.layout import Fingerprint
from trivet.server.scheduling.reshape import Reshape
from trivet.server.scheduling.statistics import ModelStatistics

Source = tuple[Fingerprint, Fingerprint, Fingerprint]
"""The fingerprints of the config files, of the version folder and of the folder of adapters."""


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
    sleeps: Sleeps | None = None
    """The executor that has its instances, if it can do without them."""
    namespace: str = ""
    """Its repository, where these are namespaces."""
    key: str = field(init=False)
    """What the server knows it by."""
    supervised: Supervised | None = field(init=False)
    """The executor, if its instances may be lost. Asked once: Python looks at each name of a
    protocol, which for a hundred models would be half of a metrics page's time."""
    measured: Measured | None = field(init=False)
    """The executor, if it generates text."""

    def __post_init__(self) -> None:
        executor = self.executor
        object.__setattr__(self, "key", key_of(self.namespace, self.name))
        supervised = executor if isinstance(executor, Supervised) else None
        object.__setattr__(self, "supervised", supervised)
        object.__setattr__(self, "measured", executor if isinstance(executor, Measured) else None)


def adapted(base: Model, adapter: str) -> Model:
    """A base with an adapter that serves, as a model of its own."""
    assert isinstance(base.executor, Adapting)
    executor = base.executor.adapters[adapter]
    return replace(base, name=f"{base.name}{SEPARATOR}{adapter}", executor=executor)
