"""What a model folder asks for, before anything is opened."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trivet.backends.api import Adapting
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.evaluation.demand import Demand
from trivet.server.models.model import Model, Source
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
    withheld: Mapping[int, str] = field(default_factory=dict)
    """Why others are not to serve, whatever the config says."""
    on_trial: frozenset[int] = frozenset()
    """Those of `versions` whose failure is no failure of the model."""

    def source_of(self, version: int) -> Source | None:
        """What a version that is loaded now will have been loaded from."""
        own = self.folder
        return None if self.is_overridden else (own.config, own.versions[version], own.adapters)

    def is_current(self, version: int, model: Model | None) -> bool:
        """Whether what serves as a version is what would be loaded."""
        source = self.source_of(version)
        # An override is not part of the files, nor are an ensemble's steps: nothing says that they
        # are what serves now.
        if self.steps or source is None or model is None or model.source is None:
            return False
        # A base follows its adapters by itself.
        count = 2 if isinstance(model.executor, Adapting) else 3
        return model.source[:count] == source[:count]
