"""The versions that serve, by model: an immutable map, replaced as a whole, and who gets which.

Owned by the event loop. A reader takes a Model and keeps it as long as it likes; the executor in it
counts the requests in progress, so a version that has left the map still answers them.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from trivet.backends.api import ModelNotFound, ModelNotReady, NotFound, ServingError
from trivet.backends.api.naming import key_of, name_in
from trivet.server.models.model import Model
from trivet.server.models.routing import Admitted, Key, Resolve, Routers
from trivet.server.repository.names import Names, ambiguous

Versions = Mapping[int, Model]


class Registry:
    """Models by key and version."""

    def __init__(self) -> None:
        self._models: Mapping[str, Versions] = MappingProxyType({})
        self.names = Names()
        """The models that are wanted: those that serve, load or did not load."""
        self.routers = Routers(self._why_unready)
        """Who gets which of them: by key, and by a name that only one model bears."""
        self._unready: dict[str, bool] = {}
        self.is_starting = False
        """Whether the repository is still being read: what is not known may be so in a moment."""

    @property
    def models(self) -> Mapping[str, Versions]:
        """The models that have a ready version."""
        return self._models

    def newest(self) -> Iterator[tuple[str, Model]]:
        """The newest version of each of them, with what it can be asked by."""
        for key, versions in self._models.items():
            yield self.names.shown(key), versions[max(versions)]

    def resolver(self, namespace: str) -> Resolve:
        """Finds models for one of this namespace: there first, then everywhere."""
        if not namespace:
            return self.routers.resolve

        def resolve(name: str, version: int | str | None, key: Key = "") -> Admitted:
            own = key_of(namespace, name)
            return self.routers.resolve(own if self.names.has(own) else name, version, key)

        return resolve

    def _why_unready(self, name: str) -> ServingError:
        bearers = self.names.bearers(name)
        if len(bearers) > 1:
            return ambiguous(name, bearers)
        is_coming = self._unready.get(bearers[0] if bearers else name)
        if is_coming is None and self.is_starting:
            return ModelNotReady(
                f"Request for model '{name[:128]}': the server is starting and still loads models"
            )
        if is_coming is None:
            return ModelNotFound(f"Request for unknown model: '{name}' is not found")
        text = f"Request for unknown model: '{name}' has no available versions"
        return ModelNotReady(text) if is_coming else NotFound(text)

    def publish(self, model: Model) -> Model | None:
        """Makes a version answer from now on; returns the one it replaces."""
        versions = dict(self._models.get(model.key, {}))
        replaced = versions.get(model.version)
        versions[model.version] = model
        self.names.take(model.key)
        self._set(model.key, versions)
        return replaced

    def withdraw(self, key: str, version: int) -> Model | None:
        """Takes a version out of the map, so that no new request finds it; returns it."""
        versions = dict(self._models.get(key, {}))
        model = versions.pop(version, None)
        self._set(key, versions)
        return model

    def take(self, key: str) -> None:
        """The model is wanted: its name means it, or is ambiguous."""
        self.names.take(key)
        self._settle(key)

    def give_up(self, key: str) -> None:
        """It is not wanted any more: its name means another model or none."""
        self.names.give_up(key)
        self._settle(key)

    def expect(self, key: str, *, is_coming: bool) -> None:
        """Says that a model is known although no version of it is ready (yet: `is_coming`)."""
        self._unready[key] = is_coming

    def forget(self, key: str) -> None:
        """The model is in no repository any more."""
        self._unready.pop(key, None)

    def _set(self, key: str, versions: dict[int, Model]) -> None:
        models = dict(self._models)
        if versions:
            models[key] = MappingProxyType(versions)
        else:
            models.pop(key, None)
        self.routers.replace(key, versions)
        self._models = MappingProxyType(models)
        self._settle(key)

    def _settle(self, key: str) -> None:
        """Whoever gives the name alone gets the only model that bears it, or none."""
        name = name_in(key)
        if name == key:
            return
        bearers = self.names.bearers(name)
        self.routers.replace(name, self._models.get(bearers[0], {}) if len(bearers) == 1 else {})
