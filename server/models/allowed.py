"""What the operator allows of models by name. A folder, a config or a request cannot."""

from dataclasses import dataclass, replace

from trivet.backends.api import ModelFiles, Pickles
from trivet.server.repository.layout import ModelFolder

NO_MODELS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Allowed:
    """Names of models."""

    pickles: frozenset[str] = NO_MODELS
    """Of `--allow-pickle`: their pickles may be loaded."""
    installs: frozenset[str] = NO_MODELS
    """Of `--allow-install`: what they require may be installed."""

    def files(
        self, folder: ModelFolder, version: int, *, is_overridden: bool = False
    ) -> ModelFiles:
        """Of a version, with what may be done to them. A model that a client has sent is not meant
        by its name. `is_overridden`: a client has sent the config."""
        files = folder.files(version)
        is_named = not folder.is_sent
        return replace(
            files,
            pickles=Pickles.APART if is_named and folder.name in self.pickles else files.pickles,
            may_install=is_named and folder.name in self.installs,
            is_clients=folder.is_sent or is_overridden,
            is_sent=folder.is_sent,
        )
