"""Models that sleep, for servers with keys: a caller's own."""

from collections.abc import Callable, Collection, Iterable, Sequence

from trivet.server.core import Sleeping
from trivet.server.models.sleeping.resident import Resident


class GuardedSleeping:
    """A `Sleeping` in front of another."""

    def __init__(
        self, sleeping: Sleeping, require: Callable[[str], None], sees: Callable[[str], bool]
    ) -> None:
        """`require` raises PermissionDenied for a model that the caller may not use, and `sees`
        says whether he may."""
        self._sleeping = sleeping
        self._require = require
        self._sees = sees

    def chosen(self, name: str) -> list[str]:
        """See Sleeping. The caller's."""
        if name:
            self._require(name)
        return [key for key in self._sleeping.chosen(name) if self._sees(key)]

    async def sleep(self, keys: Collection[str]) -> None:
        """See Sleeping."""
        for key in keys:
            self._require(key)
        await self._sleeping.sleep(keys)

    async def wake_up(self, keys: Collection[str], tags: Sequence[str]) -> None:
        """See Sleeping."""
        for key in keys:
            self._require(key)
        await self._sleeping.wake_up(keys, tags)

    def is_sleeping(self, keys: Collection[str]) -> bool:
        """See Sleeping."""
        for key in keys:
            self._require(key)
        return self._sleeping.is_sleeping(keys)

    def residents(self) -> Iterable[Resident]:
        """See Sleeping. Of all models: for the metrics page, which has a scope of its own."""
        return self._sleeping.residents()
