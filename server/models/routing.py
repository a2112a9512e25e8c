"""Which version of a model a request gets: decided here, once a request, and nowhere else.

Pure: a router is made anew whenever the versions change, and knows no clock and no counters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from trivet.backends.api import Adapting, InvalidRequest, NotFound, ServingError
from trivet.backends.api.adapting import SEPARATOR
from trivet.server.models.model import Model, adapted

Key = int | str
"""What choices stick to: requests of one key get one version, as long as the versions stay."""


class Choice(Enum):
    """How a version was chosen."""

    NAMED = "named"
    """The request says which."""
    NEWEST = "newest"
    """The request says nothing: the one with the highest number."""


@dataclass(frozen=True, slots=True, eq=False)
class Admitted:
    """The answer to the one question that each request asks: which model, in which version."""

    model: Model
    choice: Choice

    @property
    def name(self) -> str:
        """Of the model."""
        return self.model.name

    @property
    def version(self) -> int:
        """Of the model."""
        return self.model.version


class VersionRouter:
    """Chooses among the versions of one model that serve.

    Requests of a sequence come with the sequence's id as their key. A router that splits would have
    to keep to it: an executor knows only the sequences that began on its own version (or that it
    passes on to the version that it has replaced, see `SequenceExecutor.inherit`).
    """

    __slots__ = ("_held_back", "_named", "_newest")

    def __init__(
        self, versions: Mapping[int, Model], held_back: Mapping[int, str] | None = None
    ) -> None:
        """`versions`: at least one; `held_back`: why others do not serve."""
        self._held_back = held_back or {}
        self._named = {
            version: Admitted(model, Choice.NAMED) for version, model in versions.items()
        }
        self._newest = Admitted(versions[max(versions)], Choice.NEWEST)

    @property
    def newest(self) -> Model:
        """What is told and measured of a model where no request asks."""
        return self._newest.model

    def choose(self, version: int | str | None, key: Key) -> Admitted:  # noqa: ARG002
        """The version that a request gets which asks for this number or label, or for none.

        Nothing is split today, so the key is not looked at. Raises NotFound.
        """
        if version is None:
            return self._newest
        found = self._named.get(version) if isinstance(version, int) else None
        if found is None:
            raise self._not_found(version)
        return found

    def _not_found(self, version: int | str) -> NotFound:
        name = self.newest.name
        if isinstance(version, int):
            text = f"Request for unknown model: '{name}' version {version} is not found"
            why = self._held_back.get(version, "")
            return NotFound(f"{text}: {why}" if why else text)
        known = ", ".join(map(str, sorted(self._named)))
        return NotFound(
            f"Request for unknown model: '{name}' has no version with label '{version[:64]}'; "
            f"its versions are {known}"
        )


class Resolve(Protocol):
    """Finds the version of a model that a request gets."""

    def __call__(self, name: str, version: int | str | None, key: Key = "") -> Admitted:
        """See Routers.resolve."""


class Routers:
    """The routers of all models that serve, by what they can be asked by. Owned by the event loop,
    which alone changes them; read from any thread."""

    __slots__ = ("_adapting", "_by_name", "_why_none")

    def __init__(self, why_none: Callable[[str], ServingError]) -> None:
        """`why_none` says why a model has no version that serves."""
        self._by_name: dict[str, VersionRouter] = {}
        self._adapting: dict[str, Adapting] = {}
        """Those of them that have adapters."""
        self._why_none = why_none

    def resolve(self, name: str, version: int | str | None, key: Key = "") -> Admitted:
        """The version of model `name` that a request gets. Asked once a request.

        Raises ModelNotFound, NotFound for a version, ModelNotReady for one that is on its way,
        InvalidRequest for a name that several models bear.
        """
        router = self._by_name.get(name)
        if router is None:
            return self._adapted(name, version, key)
        return router.choose(version, key)

    def _adapted(self, name: str, version: int | str | None, key: Key) -> Admitted:
        """An adapter over one of the models: by its name, or by the base's and its own."""
        base, separator, adapter = name.rpartition(SEPARATOR)
        # A model may be there by two names.
        all_bases = {executor: base for base, executor in self._adapting.items()}.values()
        bases = [base] if separator else list(all_bases)
        found = [each for each in bases if self._has(each, adapter)]
        if len(found) > 1:
            names = " or ".join(f"'{base}{SEPARATOR}{adapter}'" for base in sorted(found))
            raise InvalidRequest(
                f"There are {len(found)} adapters '{adapter}', over models {', '.join(found)}; "
                f"name {names}"
            )
        if not found:
            raise self._why_none(name)
        admitted = self._by_name[found[0]].choose(version, key)
        executor = admitted.model.executor
        assert isinstance(executor, Adapting)
        if adapter not in executor.adapters:
            raise NotFound(executor.adapter_troubles.get(adapter, f"no adapter '{adapter}'"))
        return replace(admitted, model=adapted(admitted.model, adapter))

    def _has(self, base: str, adapter: str) -> bool:
        """Whether the newest version of a model has an adapter, well or not."""
        executor = self._adapting.get(base)
        if executor is None:
            return False
        return adapter in executor.adapters or adapter in executor.adapter_troubles

    def find(self, name: str) -> VersionRouter | None:
        """None for a model of which no version serves."""
        return self._by_name.get(name)

    def replace(
        self, name: str, versions: Mapping[int, Model], held_back: Mapping[int, str]
    ) -> None:
        """Other versions of a model serve from now on; perhaps none. `held_back`: why others do
        not."""
        self._adapting.pop(name, None)
        if not versions:
            self._by_name.pop(name, None)
            return
        router = self._by_name[name] = VersionRouter(versions, held_back)
        if isinstance(router.newest.executor, Adapting):
            self._adapting[name] = router.newest.executor
