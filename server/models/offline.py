"""Models of a repository that nobody serves, as ensembles ask for them: by their files alone."""

from collections.abc import Mapping, Sequence

from trivet.backends.api import (
    Composes,
    InvalidConfig,
    ModelNotFound,
    NotFound,
    ServingError,
    Signature,
)
from trivet.backends.registry import find_backend
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.composition import Composition, steps_of
from trivet.server.models.loader import Loader, Prepared
from trivet.server.models.texts import held_back, not_in_repository
from trivet.server.repository.config import config_of, select_versions
from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.scan import Snapshot


class NotInFilesError(Exception):
    """What a model takes and gives is known to its own code alone, or to a device, or its files
    are faulty, which is told where they are looked at."""


class StepMissing(InvalidConfig):
    """A step of an ensemble is not in the repository."""


class OfflineCatalog:
    """The `Catalog` over a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._folders = {
            name: each for name, each in snapshot.models.items() if not each.is_stranger
        }
        self._known = self._folders.keys() | snapshot.problems.keys()
        self._loader = Loader(self)
        self._composition = Composition()
        for name in self._folders:
            self._composition.made_of(name, self._steps(name))

    def prepare(self, folder: ModelFolder, config: ModelConfig, version: int) -> Prepared:
        """What a load would make of a version before it opens anything.

        Raises a ServingError where it would, and NotInFilesError.
        """
        files = folder.files(version)
        found = find_backend(config, files)
        if not found.about.only_reads and not isinstance(found.backend, Composes):
            raise NotInFilesError
        self._composition.check(folder.name)
        self._check_steps(config)
        return self._loader.prepare(config, files, found)

    def signature(self, name: str, version: int | str | None) -> Signature:
        """See Catalog; raises NotInFilesError, too."""
        folder = self._folder(name)
        config = self._config(folder)
        chosen = select_versions(config, folder.versions)
        if not chosen:
            raise NotInFilesError
        number = chosen[-1] if version is None else version
        if not isinstance(number, int) or number not in chosen:
            kept = held_back(config, folder.versions, chosen).get(int(number), "")
            text = f"Request for unknown model: '{name}' version {number} is not found"
            raise NotFound(f"{text}: {kept}" if kept else text)
        try:
            return Signature.from_config(self.prepare(folder, config, number).config)
        except ServingError:
            raise NotInFilesError from None
        except NotInFilesError:
            if not config.input or not config.output:
                raise
            return Signature.from_config(config)

    def labels(self, name: str, version: int | str | None) -> Mapping[str, Sequence[str]]:  # noqa: ARG002
        """Of no concern to what is checked."""
        return {}

    def parts(self, name: str) -> frozenset[str]:
        """See Catalog."""
        found: set[str] = set()
        todo = {name}
        while todo:
            found.add(part := todo.pop())
            todo |= self._composition.steps(part) - found
        return frozenset(found)

    def _check_steps(self, config: ModelConfig) -> None:
        """Whether all steps are there, in the words of a load, also where the tensors of some are
        not known."""
        for number, step in enumerate(config.ensemble_scheduling.step):
            name = step.model_name
            if name and name not in self._known:
                raise StepMissing(
                    f"{config.name}/config.pbtxt: step {number} (model '{name}'): model '{name}' "
                    f"does not serve: {not_in_repository(name, self._known)}"
                )

    def _folder(self, name: str) -> ModelFolder:
        if name not in self._known:
            raise ModelNotFound(not_in_repository(name, self._known))
        if name not in self._folders:
            raise NotInFilesError
        return self._folders[name]

    def _config(self, folder: ModelFolder) -> ModelConfig:
        try:
            return config_of(folder)
        except ServingError:
            raise NotInFilesError from None

    def _steps(self, name: str) -> frozenset[str]:
        try:
            return steps_of(config_of(self._folders[name]))
        except ServingError:
            return frozenset()
