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
    def name(self) -> str:
        return self.folder.name


@dataclass(frozen=True, slots=True)
class Unload:
    """A model whose folder is gone."""

    name: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A model that cannot be served, and why; what it served so far goes on."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stranger:
    """A folder or file that nothing takes for a model, and what to do about it. What served under
    its name is unloaded."""

    name: str
    advice: str


Action = Load | Unload | Problem | Stranger


def plan(
    snapshot: Snapshot, previous: Snapshot | None, owed: Collection[str] = ()
) -> tuple[Action, ...]:
    """The actions that lead from one snapshot (None: nothing) to another, by model name. `owed`
    are loaded although nothing of them has changed."""
    before = previous.models if previous is not None else {}
    old_problems = previous.problems if previous is not None else {}
    actions: list[Action] = [
        Stranger(name, folder.advice) if folder.is_stranger else Load(folder)
        for name, folder in snapshot.models.items()
        if (old := before.get(name)) is None or name in owed or old != folder
    ]
    actions += [
        Problem(name, reason)
        for name, reason in snapshot.problems.items()
        if old_problems.get(name) != reason
    ]
    known = snapshot.models.keys() | snapshot.problems.keys()
    actions += [Unload(name) for name in (before.keys() | old_problems.keys()) - known]
    return tuple(sorted(actions, key=lambda action: action.name))
