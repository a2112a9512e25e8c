"""What a model folder asks for, before anything is opened."""

from dataclasses import dataclass

from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.evaluation.demand import Demand
from trivet.server.models.model import Source
from trivet.server.models.traffic import EVEN, Traffic
from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.names import Reference


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Config, versions and steps of a model."""

    folder: ModelFolder
    given: ModelConfig
    """The config as written (or overridden), before auto-completion."""
    versions: tuple[int, ...]
    """The versions that should serve, ascending."""
    steps: frozenset[Reference] = frozenset()
    """The models that an ensemble is made of."""
    is_overridden: bool = False
    """Whether `given` is not the folder's config."""
    traffic: Traffic = EVEN
    """Who gets which version."""
    demand: Demand | None = None
    """What the model's gate asks of its versions; None: nothing."""

    def source_of(self, version: int) -> Source | None:
        """What a version that is loaded now will have been loaded from."""
        own = self.folder
        return None if self.is_overridden else (own.config, own.versions[version], own.adapters)
