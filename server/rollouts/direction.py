"""From what a model's folder asks for to what is to serve, as far as roll-outs have a say. Pure."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from trivet.backends.api import InvalidRequest, LoadFailed, NotFound
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.traffic import WHOLE, Share, Traffic
from trivet.server.repository.config import select_versions
from trivet.server.repository.layout import Fingerprint
from trivet.server.rollouts.book import Entry, digest_of

STABLE, CANARY = "stable", "canary"
"""The labels of both versions."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Nothing serves yet: this version gets everything."""

    version: int


@dataclass(frozen=True, slots=True)
class Start:
    """A version is new: it is rolled out."""

    stable: int
    candidate: int
    files: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """What goes on has lost its ground."""

    reason: str


@dataclass(frozen=True, slots=True)
class Inherit:
    """There is nobody else: what is rolled out gets everything."""

    reason: str


Step = Adopt | Start | GiveUp | Inherit


def next_step(entry: Entry, plan: LoadPlan) -> Step | None:
    """What is to happen, by the versions that lie in the folder, before it is loaded."""
    running, files = entry.running, plan.folder.versions
    if running is not None:
        if running.candidate not in files:
            return GiveUp("it is not in the model's folder any more")
        if running.stable not in files:
            return Inherit("the stable version is not in the model's folder any more")
        if digest_of(files[running.candidate]) != entry.files:
            return GiveUp("its files changed")
        return None
    allowed = {version for version in files if not refusal(entry, version, files[version])}
    if not allowed:
        return None
    newest = max(allowed)
    if entry.stable is None or entry.stable not in files:
        return Adopt(max(allowed.intersection(plan.versions) or allowed))
    if newest > entry.stable:
        return Start(entry.stable, newest, digest_of(files[newest]))
    return None


def start_of(plan: LoadPlan, entry: Entry, version: int | None, usual: int) -> Start:
    """What somebody starts; `usual` is the version that gets the requests now. Raises
    InvalidRequest, NotFound."""
    key, files = plan.folder.key, plan.folder.versions
    candidate = max(files) if version is None else version
    if candidate not in files:
        raise NotFound(
            f"version {candidate} is not in the folder of model '{key}', which has versions "
            f"{', '.join(map(str, sorted(files)))}"
        )
    stable = usual if entry.stable is None else entry.stable
    if stable == candidate and version is None:
        # The newest one serves since nothing kept it from that: it is put behind the one before it.
        stable = max((each for each in files if each < candidate), default=candidate)
    if stable == candidate:
        raise InvalidRequest(
            f"version {candidate} of model '{key}' gets all requests now; name another one"
        )
    return Start(stable, candidate, digest_of(files[candidate]))


def refusal(entry: Entry, version: int, files: Fingerprint) -> str:
    """Why a version is not tried; empty: it may be."""
    refused = entry.refused.get(version)
    if refused is None or version == entry.stable or refused.files != digest_of(files):
        return ""
    return refused.reason


def directed(plan: LoadPlan, entry: Entry, *, is_by_policy: bool) -> LoadPlan:
    """The plan as it is to be carried out. Without a policy, and while nothing is rolled out, the
    newest version that may serve gets all. Raises LoadFailed where none may."""
    files = plan.folder.versions
    withheld = {
        version: reason for version in files if (reason := refusal(entry, version, files[version]))
    }
    running = entry.running
    if running is not None:
        for version in files:
            if version > running.candidate:
                withheld[version] = f"waits for the roll-out of version {running.candidate}"
    elif is_by_policy and entry.stable is not None:
        for version in files:
            if version > entry.stable and version not in withheld:
                withheld[version] = "waits for the server that decides on roll-outs"
    if len(withheld) == len(files):
        told = "; ".join(f"version {each}: {why}" for each, why in sorted(withheld.items()))
        raise LoadFailed(f"no version of model '{plan.folder.key}' may serve: {told}")
    traffic = traffic_of(plan.traffic, entry, is_by_policy=is_by_policy)
    versions = _versions(plan, withheld, traffic, running.candidate if running else None)
    on_trial = frozenset({running.candidate} & set(versions)) if running else frozenset()
    return replace(plan, versions=versions, traffic=traffic, withheld=withheld, on_trial=on_trial)


def _versions(
    plan: LoadPlan, withheld: Collection[int], traffic: Traffic, candidate: int | None
) -> tuple[int, ...]:
    # The policy chooses among those that would be there without the candidate.
    left = [each for each in plan.folder.versions if each not in withheld and each != candidate]
    chosen = traffic.among(select_versions(plan.given, left))
    return tuple(version for version in chosen if version in plan.folder.versions)


def traffic_of(given: Traffic, entry: Entry, *, is_by_policy: bool) -> Traffic:
    """Who gets which version: the stable one, and its part for the candidate."""
    running = entry.running
    if entry.stable is None or (running is None and not is_by_policy):
        return given
    labels, shares = {**given.labels, STABLE: entry.stable}, []
    part = 0
    if running is not None:
        labels[CANARY] = running.candidate
        part = running.weight
        shares = [Share(CANARY, running.candidate, part)]
    stable = Share(STABLE, entry.stable, WHOLE - part)
    # The candidate stands last: what grows takes keys from those before it, and none others do.
    return replace(given, labels=labels, split=(stable, *shares))
