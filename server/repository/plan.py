"""What must change so that what serves follows the folders. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.scan import Snapshot


@dataclass(frozen=True, slots=True)
class Load:
    """A new or changed model. Which versions to load, replace or drop is the lifecycle's matter."""

    folder: ModelFolder

    @property
    def key(self) -> str:
        return self.folder.key


@dataclass(frozen=True, slots=True)
class Unload:
    """A model whose folder is gone."""

    key: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A model that cannot be served, and why; what it served so far goes on."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stranger:
    """A folder or file that nothing takes for a model, and what to do about it. What served under
    its name is unloaded."""

    key: str
    advice: str


Action = Load | Unload | Problem | Stranger


def plan(
    snapshot: Snapshot, previous: Snapshot | None, owed: Collection[str] = ()
) -> tuple[Action, ...]:
    """The actions that lead from one snapshot (None: nothing) to another, by key. `owed` are
    loaded although nothing of them has changed."""
    before = previous.models if previous is not None else {}
    old_problems = previous.problems if previous is not None else {}
    actions: list[Action] = [
        Stranger(key, folder.advice) if folder.is_stranger else Load(folder)
        for key, folder in snapshot.models.items()
        if (old := before.get(key)) is None or key in owed or old != folder
    ]
    actions += [
        Problem(key, reason)
        for key, reason in snapshot.problems.items()
        if old_problems.get(key) != reason
    ]
    known = snapshot.models.keys() | snapshot.problems.keys()
    actions += [Unload(key) for key in (before.keys() | old_problems.keys()) - known]
    return tuple(sorted(actions, key=lambda action: action.key))
