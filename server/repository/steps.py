"""What models are made of, by configs of ensembles and by files: nothing of it needs to serve."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Self

from trivet.backends.api import About, ServingError
from trivet.backends.registry import abouts
from trivet.ensembles.settings import step_settings
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.names import Names, Reference
from trivet.server.repository.scan import Snapshot

ReadConfig = Callable[[ModelFolder, str | None], ModelConfig]


def steps_of(config: ModelConfig, own: str = "") -> frozenset[Reference]:
    """The models that an ensemble's config names, fallbacks too; none for other models. `own`: the
    namespace of the ensemble.

    Raises InvalidConfig where the settings of its steps cannot be read.
    """
    if not config.HasField("ensemble_scheduling"):
        return frozenset()
    steps = config.ensemble_scheduling.step
    found = {Reference(s.model_name, (own, s.model_namespace)) for s in steps if s.model_name}
    settings = step_settings(config, f"{config.name}/config.pbtxt")
    found |= {Reference(each.fallback, (own,)) for each in settings if each.fallback}
    return frozenset(found)


def parts_of(
    config: ModelConfig, folder: ModelFolder, versions: Iterable[int]
) -> frozenset[Reference]:
    """The models that a model is made of: by its config, or by the files of these versions. Raises
    InvalidConfig as `steps_of` does."""
    naming = [about for about in abouts().values() if about.made_of is not None]
    found = steps_of(config, folder.namespace)
    for version in versions:
        for about in naming:
            found |= _named(folder, version, about)
    return found


def _named(folder: ModelFolder, version: int, about: About) -> frozenset[Reference]:
    assert about.made_of is not None, "asked of those that have it"
    there = {stamp[0] for stamp in folder.versions[version]}
    names: frozenset[str] = frozenset()
    for file in there.intersection(about.model_files):
        with suppress(OSError):
            names |= about.made_of(folder.files(version).version_dir / file)
    return frozenset(Reference(name, (folder.namespace,)) for name in names)


class Steps:
    """All that an ensemble is made of. What cannot be read has no steps."""

    def __init__(self, read: ReadConfig, snapshot: Snapshot) -> None:
        self._read = read
        self._snapshot = snapshot
        self._names = Names(snapshot.keys())
        self.keys: list[str] = []
        """The innermost first."""
        self.ambiguous: dict[str, tuple[str, ...]] = {}
        """Names of steps that several models bear, and the keys of these."""

    def of(self, folder: ModelFolder, config_json: str | None) -> Self:
        """Those of this ensemble."""
        self._add(folder, config_json, {folder.key})
        return self

    def _add(self, folder: ModelFolder, config_json: str | None, seen: set[str]) -> None:
        with suppress(ServingError):
            config = self._read(folder, config_json)
            for reference in sorted(parts_of(config, folder, folder.versions)):
                key, *others = self._names.meant(reference)
                if others:
                    self.ambiguous[reference.name] = (key, *others)
                elif key not in seen:
                    seen.add(key)
                    if key in self._snapshot.models:
                        self._add(self._snapshot.models[key], None, seen)
                    self.keys.append(key)
