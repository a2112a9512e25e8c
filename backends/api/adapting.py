"""Models that are made of another one while it serves: adapters over a base."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from trivet.backends.api.backend import Executor

ADAPTERS = "adapters"
"""The folder beside a model's versions that has one of each name; its changes load nothing but
them."""
SEPARATOR = ":"
"""Between a base's name and an adapter's; no model's name has one."""


@runtime_checkable
class Adapting(Protocol):
    """An executor of a base. Called on the event loop only."""

    @property
    def adapters(self) -> Mapping[str, Executor]:
        """Those that serve, by name: each is asked as a model of its own."""

    @property
    def adapter_troubles(self) -> Mapping[str, str]:
        """Why others do not."""

    async def follow_adapters(self) -> None:
        """Loads what lies in their folder now and drops what is gone. Never raises: what is wrong
        with one is told by `adapter_troubles`."""

    async def load_adapter(self, name: str, folder: str, *, in_place: bool) -> None:
        """Serves the adapter of a folder, by its name there; `in_place`: also where one of that
        name serves. Raises a ServingError."""

    async def unload_adapter(self, name: str) -> None:
        """Serves it no more, until its files change. Raises NotFound."""
