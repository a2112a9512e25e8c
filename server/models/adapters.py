"""Adapters over the models that serve: listed, loaded and dropped by name."""

from collections.abc import Iterator, Mapping

from trivet.backends.api import (
    Adapting,
    Generator,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    ServingError,
)
from trivet.backends.api.adapting import SEPARATOR
from trivet.server.models.known import IndexRow, State
from trivet.server.models.model import Model
from trivet.server.models.registry import Registry


class Adapters:
    """Of the usual version of each base. Used on the event loop."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def generators(self, models: Mapping[str, Generator]) -> dict[str, Generator]:
        """Those that can be asked, by what they are listed as: the adapter's name, where that means
        nothing else. `models`: all others."""
        found: dict[str, Generator] = {}
        for base, model, adapting in self._bases():
            for adapter, executor in adapting.adapters.items():
                if isinstance(executor, Generator) and executor.is_ready():
                    name = adapter if self._means(adapter, model) else f"{base}{SEPARATOR}{adapter}"
                    found[name] = executor
        return {name: each for name, each in found.items() if name not in models}

    def index(self, *, ready_only: bool) -> list[IndexRow]:
        """A row for each, by its base's name and its own."""
        rows: list[IndexRow] = []
        for _, model, adapting in self._bases():
            place, version = (model.name, model.namespace), str(model.version)
            name = f"{place[0]}{SEPARATOR}"
            for adapter in adapting.adapters:
                reason = self._clash(adapter, model)
                ready = State.READY.value
                rows.append(IndexRow(f"{name}{adapter}", place[1], version, ready, reason))
            for adapter, reason in adapting.adapter_troubles.items():
                if not ready_only and adapter not in adapting.adapters:
                    state = State.UNAVAILABLE.value
                    rows.append(IndexRow(f"{name}{adapter}", place[1], version, state, reason))
        return rows

    async def load(self, name: str, folder: str, base: str, *, in_place: bool) -> None:
        """See Core."""
        base, adapter = self._split(name, base)
        if self._registry.is_known(adapter):
            raise InvalidRequest(
                f"lora_name: '{adapter[:128]}' is a model; give the adapter another name"
            )
        await self._base(base).load_adapter(adapter, folder, in_place=in_place)

    async def unload(self, name: str, base: str) -> None:
        """See Core."""
        base, adapter = self._split(name, base)
        if not base:
            bearers = [
                each for each, _, adapting in self._bases()
                if adapter in adapting.adapters or adapter in adapting.adapter_troubles
            ]  # fmt: skip
            if not bearers:
                raise NotFound(f"lora_name: The lora adapter '{name[:128]}' cannot be found.")
            if len(bearers) > 1:
                raise _ambiguous(bearers)
            (base,) = bearers
        await self._base(base).unload_adapter(adapter)

    def _split(self, name: str, base: str) -> tuple[str, str]:
        named, _, adapter = name.rpartition(SEPARATOR)
        if named and base and named != base:
            raise InvalidRequest(f"lora_name: it names base '{named[:128]}', 'model' {base[:128]}")
        return named or base, adapter

    def _base(self, name: str) -> Adapting:
        """The base of that name, or the only one. Raises a ServingError."""
        bases = {base: adapting for base, _, adapting in self._bases()}
        if not name:
            if len(bases) != 1:
                raise _ambiguous(list(bases))
            (name,) = bases
        if name not in bases:
            raise ModelNotFound(f"lora_name: '{name[:128]}' is no model that takes adapters")
        return bases[name]

    def _bases(self) -> Iterator[tuple[str, Model, Adapting]]:
        for name, model in self._registry.usual():
            if isinstance(model.executor, Adapting):
                yield name, model, model.executor

    def _means(self, adapter: str, base: Model) -> bool:
        """Whether the name alone is this adapter's."""
        try:
            found = self._registry.routers.describe(adapter, None)
        except ServingError:
            return False
        return found.model.name == f"{base.name}{SEPARATOR}{adapter}"

    def _clash(self, adapter: str, base: Model) -> str:
        if self._means(adapter, base):
            return ""
        full = f"{base.name}{SEPARATOR}{adapter}"
        return f"it is asked as '{full}' only: '{adapter}' is a model, or an adapter of another one"


def _ambiguous(bases: list[str]) -> InvalidRequest:
    listed = f" ({', '.join(sorted(bases))})" if bases else ""
    return InvalidRequest(
        f"lora_name: {len(bases)} models may be meant{listed}; name the base, as 'model' or in "
        "front of the adapter's name (BASE:NAME)"
    )
