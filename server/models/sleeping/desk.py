"""Models put to sleep and woken by hand, and what there is to tell of those that sleep."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from trivet.backends.api import Generator, Unsupported
from trivet.server.models.model import Model
from trivet.server.models.registry import Registry
from trivet.server.models.sleeping.residency import Residency
from trivet.server.models.sleeping.resident import Resident, Rest


class SleepDesk:
    """Owned by the event loop."""

    def __init__(self, registry: Registry, residency: Residency) -> None:
        self._registry = registry
        self._residency = residency

    def chosen(self, name: str) -> list[str]:
        """See Sleeping."""
        if not name:
            return sorted({m.key for m in self._loaded() if isinstance(m.sleeps, Generator)})
        key = self._registry.routers.describe(name, None).model.key
        if all(model.sleeps is None for model in self._registry.models[key].values()):
            raise Unsupported(f"model '{name[:128]}' has nothing in memory that it could give back")
        return [key]

    async def sleep(self, keys: Collection[str]) -> None:
        """See Sleeping."""
        await self._residency.sleep(self._of(keys))

    async def wake_up(self, keys: Collection[str], tags: Sequence[str]) -> None:
        """See Sleeping."""
        await self._residency.wake(self._of(keys), tags)

    def is_sleeping(self, keys: Collection[str]) -> bool:
        """See Sleeping."""
        rests = [self._residency.rest_of(model) for model in self._of(keys)]
        return any(each is not None and each.rest is not Rest.AWAKE for each in rests)

    def residents(self) -> Iterable[Resident]:
        """See Sleeping."""
        return self._residency.residents()

    def _loaded(self) -> Iterator[Model]:
        for versions in self._registry.models.values():
            yield from versions.values()

    def _of(self, keys: Collection[str]) -> list[Model]:
        return [model for model in self._loaded() if model.key in keys]
