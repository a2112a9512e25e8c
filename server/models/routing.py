"""Which version of a model a request gets: decided here, once a request, and nowhere else.

A router is made anew whenever the versions or their traffic change, and knows no clock.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import Protocol

from trivet.backends.api import (
    Adapting,
    Client,
    InvalidRequest,
    ModelNotReady,
    NotFound,
    ServingError,
)
from trivet.backends.api.adapting import SEPARATOR
from trivet.server.models.model import Model, adapted
from trivet.server.models.splitting import Split
from trivet.server.models.texts import did_you_mean, only_candidates
from trivet.server.models.traffic import CANDIDATE, EVEN, Traffic, is_label, no_version
from trivet.server.models.watching import Watch
from trivet.server.scheduling.sequences.executor import SequenceExecutor

Key = int | str
"""What choices stick to: requests of one key get one version, as long as the shares stay."""


class Nobody:
    """The Client of what has none, such as a request that a model asks by itself."""

    def given(self, source: str) -> None:
        """Nothing."""


class _Adapting:
    """A Client that asks for an adapter of the model."""

    __slots__ = ("_adapter", "_client")

    def __init__(self, adapter: str, client: Client) -> None:
        self._adapter = adapter
        self._client = client

    def given(self, source: str) -> str | None:
        """See Client."""
        return self._adapter if source == "adapter" else self._client.given(source)


WatchOf = Callable[[Model, Traffic], Watch | None]
NOBODY = Nobody()
VERSION_HEADER, ROUTE_HEADER = "x-trivet-version", "x-trivet-route"
NOTHING_TOLD: Mapping[str, str] = MappingProxyType({})


class Choice(Enum):
    """How a version was chosen."""

    NAMED = "named"
    """The request says which."""
    LABEL = "label"
    """The request says what it is called."""
    SEQUENCE = "sequence"
    """It goes on where its sequence began."""
    SPLIT = "split"
    """The request says nothing, and the model's traffic is split."""
    CANDIDATE = "candidate"
    """The request says which, and that has not passed its evaluation."""
    NEWEST = "newest"
    """The request says nothing: the one with the highest number."""


@dataclass(frozen=True, slots=True, eq=False)
class Admitted:
    """The answer to the one question that each request asks: which model, in which version."""

    model: Model
    choice: Choice
    label: str = ""
    """The label that was asked for, or the arm of the split."""
    told: Mapping[str, str] = field(default_factory=lambda: NOTHING_TOLD)
    """What answers say of it, by header: nothing of models whose traffic is nobody's concern."""
    watch: Watch | None = None
    """Who sees what becomes of the request."""

    @property
    def name(self) -> str:
        """Of the model."""
        return self.model.name

    @property
    def version(self) -> int:
        """Of the model."""
        return self.model.version


def no_watch(_model: Model, _traffic: Traffic) -> None:
    """Nobody looks."""


def _admitted(
    model: Model,
    choice: Choice,
    label: str = "",
    *,
    tells: bool = True,
    watch: Watch | None = None,
) -> Admitted:
    if not tells:
        return Admitted(model, choice, label)
    route = f"{choice.value}:{label}" if label else choice.value
    told = {VERSION_HEADER: str(model.version), ROUTE_HEADER: route}
    return Admitted(model, choice, label, MappingProxyType(told), watch)


class VersionRouter:
    """Chooses among the versions of one model that serve."""

    __slots__ = (
        "_held_back",
        "_keepers",
        "_named",
        "_newest",
        "_split",
        "_takes_requests",
        "_usual",
        "only",
        "traffic",
    )

    def __init__(
        self,
        versions: Mapping[int, Model],
        held_back: Mapping[int, str] | None = None,
        traffic: Traffic = EVEN,
        owed: Sequence[float] = (),
        watch_of: WatchOf = no_watch,
    ) -> None:
        """`versions`: at least one; `held_back`: why others do not serve. What `traffic` names and
        does not serve has no part in it: its share goes to the others. `owed`: what was owed by the
        router before, of the same traffic."""
        self._held_back = held_back or {}
        self.traffic = traffic
        make = partial(_admitted, tells=traffic != EVEN)
        candidates = {v: m for v, m in versions.items() if v in traffic.candidates}
        versions = {v: m for v, m in versions.items() if v not in candidates}
        self._takes_requests = bool(versions)
        self._named: dict[int | str, Admitted] = {
            version: make(model, Choice.NAMED) for version, model in versions.items()
        }
        for label, version in traffic.labels.items():
            if version in versions:
                self._named[label] = make(versions[version], Choice.LABEL, label)
        for version, model in sorted(candidates.items()):
            named = make(model, Choice.CANDIDATE, CANDIDATE)
            self._named[version] = self._named[CANDIDATE] = named
        newest = (versions or candidates)[max(versions or candidates)]
        self._newest = make(newest, Choice.NEWEST, watch=watch_of(newest, traffic))
        self._split = _split_over(versions, traffic, owed, watch_of)
        self._usual = self._newest
        if self._split is not None:
            largest = max(traffic.split, key=lambda each: each.weight * (each.version in versions))
            self._usual = self._named[largest.version]
        self._keepers = [
            make(model, Choice.SEQUENCE, watch=watch_of(model, traffic))
            for model in versions.values()
            if len(versions) > 1 and isinstance(model.executor, SequenceExecutor)
        ]
        is_plain = self._takes_requests and self._split is None and not self._keepers
        self.only = self._newest if is_plain else None
        """What every request gets that names no version; None: that depends on the request."""

    @property
    def takes_requests(self) -> bool:
        """Whether any version may get those that name none: not of candidates alone."""
        return self._takes_requests

    @property
    def usual(self) -> Admitted:
        """What most requests get that name no version: it is told of a model where none asks."""
        return self._usual

    def described(self) -> Admitted:
        """The same, for who names the model. Raises ModelNotReady where all are candidates."""
        if not self._takes_requests:
            raise ModelNotReady(only_candidates(self._newest.name, self.traffic.candidates))
        return self._usual

    @property
    def owed(self) -> Sequence[float]:
        """What each arm of the split lacks; empty where nothing of it serves, or there is none."""
        return self._split.owed if self._split is not None else ()

    def choose(self, version: int | str | None, key: Key, asker: Client = NOBODY) -> Admitted:
        """The version that a request gets which asks for this number or label, or for none.

        Raises NotFound.
        """
        if version is None:
            return self.only or self._shared_out(key, asker)
        found = self._named.get(version)
        if found is None:
            raise self._not_found(version)
        return found

    def _shared_out(self, key: Key, asker: Client) -> Admitted:
        for keeper in self._keepers:
            assert isinstance(keeper.model.executor, SequenceExecutor)
            if keeper.model.executor.holds(key):
                # Whatever the shares are by now: only this version knows how the sequence began.
                return keeper
        if self._split is None:
            return self.described() if not self._takes_requests else self._newest
        if not self._keepers:
            for source in self.traffic.sticky:
                if given := asker.given(source):
                    return self._split.choose(given)
        return self._split.choose(key)

    def _not_found(self, version: int | str) -> ServingError:
        name = self._newest.name
        if isinstance(version, int):
            text = f"Request for unknown model: '{name}' version {version} is not found"
            why = self._held_back.get(version, "")
            return NotFound(f"{text}: {why}" if why else text)
        if not self.traffic.labels and version != CANDIDATE:
            return no_version(version)
        text = f"Request for unknown model: '{name}' has no version with label '{version[:64]}'"
        if version in self.traffic.labels:
            number = self.traffic.labels[version]
            why = self._held_back.get(number, "it does not serve")
            return NotFound(f"{text} now: that is version {number}; {why}")
        known = ", ".join(map(str, sorted(self._named, key=str)))
        near = did_you_mean(version, self.traffic.labels)
        return NotFound(f"{text}; its versions and labels are {known}{near}")


def _split_over(
    versions: Mapping[int, Model], traffic: Traffic, owed: Sequence[float], watch_of: WatchOf
) -> Split[Admitted] | None:
    """None: nothing of it serves, or there is none."""
    shares = [(share, versions.get(share.version)) for share in traffic.split]
    weights = [share.weight if model is not None else 0 for share, model in shares]
    if not any(weights):
        return None
    some = next(model for _, model in shares if model is not None)
    arms = []
    for share, model in shares:
        watch = watch_of(model, traffic) if model is not None else None
        arms.append(_admitted(model or some, Choice.SPLIT, share.name, watch=watch))
    return Split(arms, weights, some.name, owed)


class Resolve(Protocol):
    """Finds the version of a model that a request gets."""

    def __call__(
        self, name: str, version: int | str | None, key: Key = "", asker: Client = NOBODY
    ) -> Admitted:
        """See Routers.resolve."""


class Routers:
    """The routers of all models that serve, by what they can be asked by. Owned by the event loop,
    which alone changes them; read from any thread."""

    __slots__ = ("_adapting", "_by_name", "_owed", "_why_none", "watch_of")

    def __init__(self, why_none: Callable[[str], ServingError]) -> None:
        """`why_none` says why a model has no version that serves."""
        self.watch_of: WatchOf = no_watch
        """Who sees what becomes of requests that are shared out."""
        self._by_name: dict[str, VersionRouter] = {}
        self._adapting: dict[str, Adapting] = {}
        """Those of them that have adapters."""
        self._owed: dict[str, tuple[Traffic, Sequence[float]]] = {}
        """What arms lacked when the last router of a name with a split went."""
        self._why_none = why_none

    def resolve(
        self, name: str, version: int | str | None, key: Key = "", asker: Client = NOBODY
    ) -> Admitted:
        """The version of model `name` that a request gets. Asked once a request.

        A name that no model bears may be an adapter's, or end in `@` and a label, behind which `:`
        and an adapter may stand.

        Raises ModelNotFound, NotFound for a version, ModelNotReady for one that is on its way,
        InvalidRequest for a name that several models bear.
        """
        router = self._by_name.get(name)
        if router is not None:
            if version is None and router.only is not None:
                return router.only
            return router.choose(version, key, asker)
        router, version, adapter = self._meant(name, version)
        if adapter:
            asker = _Adapting(adapter, asker)
        return _adapted(router.choose(version, key, asker), adapter)

    def describe(self, name: str, version: int | str | None) -> Admitted:
        """The same for what is no request: without a version what is usual. Raises alike."""
        router, adapter = self._by_name.get(name), ""
        if router is None:
            router, version, adapter = self._meant(name, version)
        chosen = router.described() if version is None else router.choose(version, "")
        return _adapted(chosen, adapter)

    def _meant(
        self, name: str, version: int | str | None
    ) -> tuple[VersionRouter, int | str | None, str]:
        """Of a name that no model bears: whose versions, which of them, and which adapter of it;
        empty: none."""
        if (found := self._adapter(name)) is not None:
            router, adapter = found
            return router, version, adapter
        base, _, behind = name.rpartition("@")
        label, separator, adapter = behind.partition(SEPARATOR)
        labelled = self._by_name.get(base)
        if labelled is None or not is_label(label) or (separator and not adapter):
            raise self._why_none(name)
        if version is not None:
            raise InvalidRequest(
                f"'{name[:128]}' names version '{label}', and the request version '{version}' "
                "besides; name one"
            )
        return labelled, label, adapter

    def _adapter(self, name: str) -> tuple[VersionRouter, str] | None:
        """An adapter by its name, or by its base's and its own: the base, and the adapter."""
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
        return (self._by_name[found[0]], adapter) if found else None

    def _has(self, base: str, adapter: str) -> bool:
        """Whether the usual version of a model has an adapter, well or not."""
        executor = self._adapting.get(base)
        if executor is None:
            return False
        return adapter in executor.adapters or adapter in executor.adapter_troubles

    def find(self, name: str) -> VersionRouter | None:
        """None for a model of which no version serves."""
        return self._by_name.get(name)

    def replace(
        self,
        name: str,
        versions: Mapping[int, Model],
        held_back: Mapping[int, str],
        traffic: Traffic,
    ) -> None:
        """Other versions of a model serve from now on, or they are shared out otherwise; perhaps
        none. `held_back`: why others do not."""
        self._adapting.pop(name, None)
        before = self._by_name.get(name)
        if before is not None and before.owed:
            self._owed[name] = before.traffic, before.owed
        if not versions:
            self._by_name.pop(name, None)
            return
        known, owed = self._owed.get(name, (EVEN, ()))
        owed = owed if known == traffic else ()
        router = VersionRouter(versions, held_back, traffic, owed, self.watch_of)
        self._by_name[name] = router
        executor = router.usual.model.executor
        if isinstance(executor, Adapting):
            self._adapting[name] = executor


def _adapted(admitted: Admitted, adapter: str) -> Admitted:
    """One of the base's versions with an adapter, if one is meant. Raises NotFound where that did
    not load."""
    if not adapter:
        return admitted
    executor = admitted.model.executor
    if not isinstance(executor, Adapting) or adapter not in executor.adapters:
        troubles = executor.adapter_troubles if isinstance(executor, Adapting) else {}
        none = f"version {admitted.version} of '{admitted.name}' has no adapter '{adapter[:128]}'"
        raise NotFound(troubles.get(adapter, none))
    return replace(admitted, model=adapted(admitted.model, adapter))
