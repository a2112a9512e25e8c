"""The versions that serve, by model: an immutable map, replaced as a whole, and who gets which.

Owned by the event loop. A reader takes a Model and keeps it as long as it likes; the executor in it
counts the requests in progress, so a version that has left the map still answers them.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType

from trivet.backends.api import Client, ModelNotFound, ModelNotReady, NotFound, ServingError
from trivet.backends.api.naming import key_of, name_in
from trivet.server.models.model import Model
from trivet.server.models.routing import NOBODY, Admitted, Key, Resolve, Routers
from trivet.server.models.texts import NO_SUGGESTIONS, did_you_mean
from trivet.server.models.traffic import EVEN, NO_CANDIDATES, Traffic
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
        self._held_back: dict[str, Mapping[int, str]] = {}
        self._traffic: dict[str, Traffic] = {}
        self._candidates: dict[str, Mapping[int, str]] = {}
        self.trouble_of: Callable[[str], str] = lambda _: ""
        """Why a known model has no version that serves."""
        self.is_stranger: Callable[[str], bool] = lambda _: False
        """Whether something of that name lies in a repository and is taken for no model."""
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
        keys = self._models.keys() | self._unready.keys()
        return {name_in(key) for key in keys} if self.suggests_names else NO_SUGGESTIONS

    def usual(self) -> Iterator[tuple[str, Model]]:
        """The version of each that most requests get, with what it can be asked by."""
        for key in self._models:
            router = self.routers.find(key)
            assert router is not None, "a version of it serves"
            if router.takes_requests:
                yield self.names.shown(key), router.usual.model

    def resolver(self, namespace: str) -> Resolve:
        """Finds models for one of this namespace: there first, then everywhere."""
        if not namespace:
            return self.routers.resolve

        def resolve(
            name: str, version: int | str | None, key: Key = "", asker: Client = NOBODY
        ) -> Admitted:
            return self.routers.resolve(self.within(namespace, name), version, key, asker)

        return resolve

    def within(self, namespace: str, name: str) -> str:
        """What a model of this namespace, if there are any, means by a name."""
        own = key_of(namespace, name)
        is_own = self.names.has(own) or self.names.has(own.rpartition("@")[0])
        return own if is_own else name

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
            return ModelNotFound(
                f"Request for unknown model: '{name}' is not found{self._what_is_there(name)}"
            )
        trouble = self.trouble_of(bearers[0] if bearers else name)
        text = f"Request for unknown model: '{name}' has no available versions"
        text += f": {trouble}" if trouble else ""
        return ModelNotReady(text) if is_coming else NotFound(text)

    def _what_is_there(self, name: str) -> str:
        if self.suggests_names and self.is_stranger(name):
            return (
                ": what lies in the repository under that name is not taken for a model; the "
                "repository index has the reason"
            )
        return did_you_mean(name, self.suggestions)

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
        self._held_back.pop(key, None)
        self._traffic.pop(key, None)
        self._candidates.pop(key, None)

    def is_known(self, key: str) -> bool:
        """Whether there is such a model, ready or not."""
        return key in self._models or key in self._unready

    def hold_back(self, key: str, reasons: Mapping[int, str]) -> None:
        """Why versions that lie in a model's folder may not serve."""
        self._held_back[key] = reasons
        self._route(key)

    def is_shared_out(self, key: str) -> bool:
        """Whether anything but the newest version is meant for requests, or has a name."""
        return self._traffic.get(key, EVEN) != EVEN

    def candidates(self, key: str) -> Mapping[int, str]:
        """The versions of a model that have not passed their evaluation, and why."""
        return self._candidates.get(key, NO_CANDIDATES)

    def withhold(self, key: str, candidates: Mapping[int, str]) -> None:
        """Which versions have not passed their evaluation, whatever is shared out: said before they
        are published, as a candidate must never be the newest."""
        if candidates != self.candidates(key):
            self._candidates[key] = candidates
            self._route(key)

    def settle_traffic(self, key: str, traffic: Traffic) -> None:
        """Who gets which version of a model, and which ones are candidates, from now on."""
        self.withhold(key, traffic.candidates)
        self.share_out(key, traffic)

    def traffic_of(self, key: str) -> Traffic:
        """Who gets which version of a model."""
        return self._traffic.get(key, EVEN)

    def share_out(self, key: str, traffic: Traffic) -> None:
        """Who gets which version of a model from now on."""
        self._traffic[key] = traffic
        self._route(key)

    def _set(self, key: str, versions: dict[int, Model]) -> None:
        models = dict(self._models)
        if versions:
            models[key] = MappingProxyType(versions)
        else:
            models.pop(key, None)
        self._models = MappingProxyType(models)
        self._route(key)

    def _route(self, key: str) -> None:
        self._replace(key, key)
        self._settle(key)

    def _replace(self, name: str, key: str) -> None:
        """Whoever gives the name gets the model with that key; empty: none."""
        versions, held_back = self._models.get(key, {}), self._held_back.get(key, {})
        traffic = self._traffic.get(key, EVEN)
        if (candidates := self.candidates(key)) != traffic.candidates:
            traffic = traffic.with_candidates(candidates)
        self.routers.replace(name, versions, held_back, traffic)

    def _settle(self, key: str) -> None:
        """Whoever gives the name alone gets the only model that bears it, or none."""
        name = name_in(key)
        if name == key:
            return
        bearers = self.names.bearers(name)
        self._replace(name, bearers[0] if len(bearers) == 1 else "")
