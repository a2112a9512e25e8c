"""The versions that serve, by model: an immutable map, replaced as a whole, and who gets which.

Owned by the event loop. A reader takes a Model and keeps it as long as it likes; the executor in it
counts the requests in progress, so a version that has left the map still answers them.
"""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from trivet.backends.api import ModelNotFound, ModelNotReady, NotFound, ServingError
from trivet.server.models.model import Model
from trivet.server.models.routing import Routers
from trivet.server.models.texts import NO_SUGGESTIONS, did_you_mean

Versions = Mapping[int, Model]


class Registry:
    """Models by name and version."""

    def __init__(self) -> None:
        self._models: Mapping[str, Versions] = MappingProxyType({})
        self.routers = Routers(self._why_unready)
        """Who gets which of them."""
        self._unready: dict[str, bool] = {}
        self._held_back: dict[str, Mapping[int, str]] = {}
        self.trouble_of: Callable[[str], str] = lambda _: ""
        """Why a known model has no version that serves."""
        self.suggests_names = True
        """Whether errors may name models that are called like what was asked for."""
        self.is_starting = False
        """Whether the repository is still being read: what is not known may be so in a moment."""

    @property
    def models(self) -> Mapping[str, Versions]:
        """The models that have a ready version."""
        return self._models

    @property
    def suggestions(self) -> Collection[str]:
        """The models that may be named to who asks for another."""
        names = self._models.keys() | self._unready.keys()
        return names if self.suggests_names else NO_SUGGESTIONS

    def _why_unready(self, name: str) -> ServingError:
        is_coming = self._unready.get(name)
        if is_coming is None and self.is_starting:
            return ModelNotReady(
                f"Request for model '{name[:128]}': the server is starting and still loads models"
            )
        if is_coming is None:
            near = did_you_mean(name, self.suggestions)
            return ModelNotFound(f"Request for unknown model: '{name}' is not found{near}")
        trouble = self.trouble_of(name)
        text = f"Request for unknown model: '{name}' has no available versions"
        text += f": {trouble}" if trouble else ""
        return ModelNotReady(text) if is_coming else NotFound(text)

    def publish(self, model: Model) -> Model | None:
        """Makes a version answer from now on; returns the one it replaces."""
        versions = dict(self._models.get(model.name, {}))
        replaced = versions.get(model.version)
        versions[model.version] = model
        self._set(model.name, versions)
        return replaced

    def withdraw(self, name: str, version: int) -> Model | None:
        """Takes a version out of the map, so that no new request finds it; returns it."""
        versions = dict(self._models.get(name, {}))
        model = versions.pop(version, None)
        self._set(name, versions)
        return model

    def expect(self, name: str, *, is_coming: bool) -> None:
        """Says that a model is known although no version of it is ready (yet: `is_coming`)."""
        self._unready[name] = is_coming

    def forget(self, name: str) -> None:
        """The model is in no repository any more."""
        self._unready.pop(name, None)
        self._held_back.pop(name, None)

    def is_known(self, name: str) -> bool:
        """Whether there is such a model, ready or not."""
        return name in self._models or name in self._unready

    def hold_back(self, name: str, reasons: Mapping[int, str]) -> None:
        """Why versions that lie in a model's folder may not serve."""
        self._held_back[name] = reasons
        if name in self._models:
            self.routers.replace(name, self._models[name], reasons)

    def _set(self, name: str, versions: dict[int, Model]) -> None:
        models = dict(self._models)
        if versions:
            models[name] = MappingProxyType(versions)
        else:
            models.pop(name, None)
        self.routers.replace(name, versions, self._held_back.get(name, {}))
        self._models = MappingProxyType(models)
