"""Models of a repository that nobody serves, as ensembles ask for them: by their files alone."""

from collections.abc import Mapping, Sequence

from trivet.backends.api import (
    Composes,
    InvalidConfig,
    ModelFiles,
    ModelNotFound,
    NotFound,
    ServingError,
    Signature,
)
from trivet.backends.api.naming import name_in
from trivet.backends.registry import find_backend
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.allowed import Allowed
from trivet.server.models.composition import Composition
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.loader import Loader, Prepared
from trivet.server.models.texts import held_back, not_in_repository
from trivet.server.models.traffic import read_traffic
from trivet.server.repository.config import config_of, select_versions
from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.names import Names, Reference
from trivet.server.repository.scan import Snapshot
from trivet.server.repository.steps import parts_of


class NotInFilesError(Exception):
    """What a model takes and gives is known to its own code alone, or to a device, or its files
    are faulty, which is told where they are looked at."""


class StepMissing(InvalidConfig):
    """A step of an ensemble is not in the repository."""


class OfflineModels:
    """The models of a snapshot, prepared as a load would, but not opened."""

    def __init__(self, snapshot: Snapshot, allowed: Allowed | None = None) -> None:
        self._allowed = allowed or Allowed()
        self.folders = {key: each for key, each in snapshot.models.items() if not each.is_stranger}
        self.names = Names((*self.folders, *snapshot.problems))
        self._composition = Composition(self.names)
        for key, folder in self.folders.items():
            self._composition.made_of(key, _steps(folder))

    def within(self, namespace: str) -> "OfflineCatalog":
        """For a model of this namespace."""
        return OfflineCatalog(self, namespace)

    def files(self, folder: ModelFolder, version: int) -> ModelFiles:
        """Of a version, with what may be done to them."""
        return self._allowed.files(folder, version)

    def prepare(self, folder: ModelFolder, config: ModelConfig, version: int) -> Prepared:
        """What a load would make of a version before it opens anything.

        Raises a ServingError where it would, and NotInFilesError.
        """
        files = self.files(folder, version)
        found = find_backend(config, files)
        if not found.about.only_reads and not isinstance(found.backend, Composes):
            raise NotInFilesError
        self._composition.check(folder.key)
        self._check_steps(folder, config)
        steps = parts_of(config, folder, (version,))
        if any(len(self.names.meant(step)) > 1 for step in steps):
            raise NotInFilesError
        plan = LoadPlan(folder, config, (version,), steps)
        return Loader(self).prepare(plan, files, found)

    def signature(self, key: str, version: int | str | None) -> Signature:
        """What a model takes and gives. Raises ModelNotFound, NotFound, NotInFilesError."""
        key, label = self.names.unlabelled(key)
        if not self.names.has(key):
            raise ModelNotFound(not_in_repository(key, self._shown()))
        folder = self.folders.get(key)
        if label and folder is not None:
            version = read_traffic(folder).labels.get(label, label)
        config = _config(folder) if folder is not None else None
        chosen = []
        if folder and config:
            picked = select_versions(config, folder.versions)
            chosen = list(read_traffic(folder).among(picked))
        if folder is None or config is None or not chosen:
            raise NotInFilesError
        number = chosen[-1] if version is None else version
        if not isinstance(number, int) or number not in chosen:
            why = held_back(config, folder.versions, chosen)
            kept = why.get(number, "") if isinstance(number, int) else ""
            text = f"Request for unknown model: '{key}' version {number} is not found"
            raise NotFound(f"{text}: {kept}" if kept else text)
        try:
            return Signature.from_config(self.prepare(folder, config, number).config)
        except ServingError:
            raise NotInFilesError from None
        except NotInFilesError:
            if not config.input or not config.output:
                raise
            return Signature.from_config(config)

    def parts(self, key: str) -> frozenset[str]:
        """The model, and whatever it is made of."""
        found: set[str] = set()
        todo = {self.names.unlabelled(key)[0]}
        while todo:
            found.add(part := todo.pop())
            todo |= self._composition.steps(part) - found
        return frozenset(found)

    def _shown(self) -> set[str]:
        return {name_in(key) for key in self.folders}

    def _check_steps(self, folder: ModelFolder, config: ModelConfig) -> None:
        """Whether all steps are there, in the words of a load, also where the tensors of some are
        not known."""
        for number, step in enumerate(config.ensemble_scheduling.step):
            name = step.model_name
            meant = self.names.meant(Reference(name, (folder.namespace, step.model_namespace)))
            if name and not any(map(self.names.has, meant)):
                raise StepMissing(
                    f"{config.name}/config.pbtxt: step {number} (model '{name}'): model '{name}' "
                    f"does not serve: {not_in_repository(name, self._shown())}"
                )


class OfflineCatalog:
    """The `Catalog` over them, for a model of one namespace."""

    def __init__(self, models: OfflineModels, namespace: str) -> None:
        self._models = models
        self._namespace = namespace

    def find(self, name: str, namespace: str = "") -> str:
        """See Catalog."""
        return self._models.names.find(Reference(name, (self._namespace, namespace)))

    def signature(self, name: str, version: int | str | None) -> Signature:
        """See Catalog; raises NotInFilesError, too."""
        return self._models.signature(name, version)

    def labels(self, name: str, version: int | str | None) -> Mapping[str, Sequence[str]]:  # noqa: ARG002
        """Of no concern to what is checked."""
        return {}

    def parts(self, key: str) -> frozenset[str]:
        """See Catalog."""
        return self._models.parts(key)


def _config(folder: ModelFolder) -> ModelConfig:
    try:
        return config_of(folder)
    except ServingError:
        raise NotInFilesError from None


def _steps(folder: ModelFolder) -> frozenset[Reference]:
    try:
        return parts_of(config_of(folder), folder, folder.versions)
    except ServingError:
        return frozenset()
