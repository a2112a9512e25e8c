"""What is known of a model that is or was in a repository: its versions' states, and why."""

import asyncio
from dataclasses import dataclass, field
from enum import Enum

from trivet.server.logs.outage import Outage
from trivet.server.repository.layout import ModelFolder


class State(Enum):
    """A version's state, as the repository index names it."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Status:
    """Where a version is, and why when that is not plain."""

    state: State
    reason: str = ""
    is_faulty: bool = False
    """Its files were read, and do not load: not a fault of the disk, nor of the whole model."""


@dataclass(frozen=True, slots=True)
class IndexRow:
    """A version in the repository index, or a model of which none could be tried."""

    name: str
    namespace: str
    """The repository, where these are namespaces."""
    version: str = ""
    state: str = ""
    reason: str = ""


@dataclass(slots=True)
class Known:
    """A model that is or was in a repository. Owned by the loop."""

    versions: dict[int, Status] = field(default_factory=dict)
    failure: str = ""
    """Why no version of it could even be tried; empty when one could."""
    is_gone: bool = False
    """Its folder was removed; it is forgotten once its last version has ended."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: "Wanted | None" = None
    """An ensemble that should serve whenever its steps do."""
    is_unreadable: bool = False
    """The disk did not give out its files when it was last to be loaded."""
    outage: Outage = field(default_factory=Outage)
    """Of the disk, for this model."""

    @property
    def trouble(self) -> str:
        """Why it does not serve, if none of its versions does: for who asks for it."""
        statuses = self.versions.values()
        if any(status.state is State.LOADING for status in statuses):
            return "it is being loaded"
        failed = (s for s in statuses if s.state is State.UNAVAILABLE and s.reason != "unloaded")
        if self.failure or any(failed):
            return "it does not serve; the repository index has the reason"
        return "it is in the repository, but it is not loaded; load it by its name first"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was last asked to be loaded."""

    folder: ModelFolder
    override_json: str | None
