"""What one model of a repository is to clients that take turns (see `test_repository_order.py`).

A load is several events, all within its call: it begins once no other one is under way, each
version is published when it is ready, and the end takes what is not wanted any more out of service.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum


class Refusal(Enum):
    """What a client is told, in the words of either protocol."""

    WRONG = "400"
    NOT_FOUND = "404"
    COMING = "503"


@dataclass(frozen=True, slots=True)
class Load:
    """One call of it."""

    number: int
    """Of its own."""
    label: str
    """What answers of the versions that it loads say."""
    versions: frozenset[int]
    """Those that should serve afterwards; none where the config is wrong."""

    def __str__(self) -> str:
        return f"load {self.number} ({self.label} of {sorted(self.versions) or 'a wrong config'})"


@dataclass(frozen=True, slots=True)
class State:
    """A model."""

    labels: tuple[tuple[int, str], ...] = ()
    """What serves: versions, ascending, with the labels of their answers."""
    loading: Load | None = None
    missing: frozenset[int] = frozenset()
    """What the load has yet to publish."""
    is_known: bool = False
    """Whether a load of it has ever begun."""

    @property
    def refusal(self) -> Refusal:
        """What a request for a version that does not serve is told."""
        if not self.is_known:
            return Refusal.WRONG
        # While some version serves, the others are no versions, whatever is loading.
        is_coming = self.loading is not None and not self.labels
        return Refusal.COMING if is_coming else Refusal.NOT_FOUND

    def label(self, version: int | str | None) -> tuple[int, str] | None:
        """What answers a request for a version, or for none."""
        if version is None:
            return self.labels[-1] if self.labels else None
        return next((each for each in self.labels if each[0] == version), None)


@dataclass(frozen=True, slots=True)
class Begun:
    load: Load

    def __str__(self) -> str:
        return f"{self.load} begins"


@dataclass(frozen=True, slots=True)
class Published:
    load: Load
    version: int

    def __str__(self) -> str:
        return f"{self.load} publishes {self.version}"


@dataclass(frozen=True, slots=True)
class Ended:
    load: Load

    def __str__(self) -> str:
        return f"{self.load} ends"


@dataclass(frozen=True, slots=True)
class Unloaded:
    def __str__(self) -> str:
        return "unload"


@dataclass(frozen=True, slots=True)
class Answered:
    """A request was computed."""

    asked: int | None
    version: int
    label: str

    def __str__(self) -> str:
        return f"infer {_text(self.asked)}: {self.label} of {self.version}"


@dataclass(frozen=True, slots=True)
class Refused:
    """A request was told that nothing can compute it."""

    asked: int | None
    refusal: Refusal

    def __str__(self) -> str:
        return f"infer {_text(self.asked)}: {self.refusal.value}"


@dataclass(frozen=True, slots=True)
class WasReady:
    asked: int | None
    is_ready: bool

    def __str__(self) -> str:
        return f"ready {_text(self.asked)}: {self.is_ready}"


@dataclass(frozen=True, slots=True)
class Listed:
    """The model's rows of the index."""

    ready: frozenset[int] = field(default_factory=frozenset)
    loading: frozenset[int] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return f"index: {sorted(self.ready)} ready, {sorted(self.loading)} loading"


Change = Begun | Published | Ended | Unloaded
Question = Answered | Refused | WasReady | Listed
Event = Change | Question


def events_of(load: Load) -> Iterator[Change]:
    """All that a load consists of."""
    yield Begun(load)
    for version in sorted(load.versions):
        yield Published(load, version)
    yield Ended(load)


class Repository:
    """One model that was never loaded, changed and asked by one client."""

    initial = State()

    def is_question(self, event: Event) -> bool:
        return isinstance(event, Question)

    def after(self, state: State, event: Event) -> State | None:
        """The state after an event; None where it cannot have been."""
        if isinstance(event, Question):
            return state if _is_right(state, event) else None
        if isinstance(event, Begun):
            return None if state.loading else _begun(state, event.load)
        if isinstance(event, Unloaded):
            return None if state.loading else replace(state, labels=())
        if state.loading != event.load:
            return None
        return _published(state, event) if isinstance(event, Published) else _ended(state)


def _begun(state: State, load: Load) -> State:
    return replace(state, loading=load, missing=load.versions, is_known=True)


def _published(state: State, event: Published) -> State | None:
    if event.version not in state.missing:
        return None
    labels = dict(state.labels) | {event.version: event.load.label}
    missing = state.missing - {event.version}
    return replace(state, labels=tuple(sorted(labels.items())), missing=missing)


def _ended(state: State) -> State | None:
    assert state.loading is not None
    if state.missing:
        return None
    # A load that fails leaves what serves.
    wanted = state.loading.versions or {version for version, _ in state.labels}
    labels = tuple(each for each in state.labels if each[0] in wanted)
    return replace(state, labels=labels, loading=None)


def _is_right(state: State, event: Question) -> bool:
    if isinstance(event, Answered):
        return state.label(event.asked) == (event.version, event.label)
    if isinstance(event, WasReady):
        return event.is_ready is (state.label(event.asked) is not None)
    if isinstance(event, Listed):
        serving = {version for version, _ in state.labels}
        return event.ready == serving and event.loading <= state.missing - serving
    return state.label(event.asked) is None and event.refusal is state.refusal


def _text(version: int | str | None) -> str:
    return "newest" if version is None else str(version)
