"""What operators and clients may ask of roll-outs and traffic, by the models' names."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from trivet.backends.api import InvalidConfig, InvalidRequest
from trivet.server.models.registry import Registry
from trivet.server.models.texts import did_you_mean
from trivet.server.models.traffic import Traffic, parse_document
from trivet.server.rollouts.arms import Arm
from trivet.server.rollouts.book import Event
from trivet.server.rollouts.chronicle import Chronicle
from trivet.server.rollouts.documents import Document, rollout_document, traffic_document
from trivet.server.rollouts.experiments import Experiments
from trivet.server.rollouts.journal import NoJournal
from trivet.server.rollouts.rollouts import Rollouts
from trivet.server.shadows.mirror import Verdict

OPERATOR = "operator"
"""Who asks, where nobody has a name."""
COMMANDS = ("start", "pause", "resume", "promote", "abort")
_TRAFFIC_KEYS = ("labels", "split", "sticky")
_START_KEYS = ("version", "policy")
_MOST_NAME = 64
MOST_VALUE = 1e12
"""Of feedback: larger numbers would leave no mean and no variance."""


class ReleaseDesk:
    """A `Releases`. Owned by the event loop."""

    def __init__(
        self,
        registry: Registry,
        chronicle: Chronicle,
        experiments: Experiments,
        rollouts: Rollouts,
    ) -> None:
        self._registry = registry
        self._chronicle = chronicle
        self._experiments = experiments
        self._rollouts = rollouts
        registry.routers.watch_of = experiments.watch_of

    @classmethod
    def alone(cls, registry: Registry) -> "ReleaseDesk":
        """Of a server that rolls nothing out."""
        chronicle, experiments = Chronicle(NoJournal()), Experiments()
        return cls(registry, chronicle, experiments, Rollouts(registry, chronicle, experiments))

    def key_of(self, name: str) -> str:
        """The model that a client means. Raises ModelNotFound, NotFound, ModelNotReady."""
        return self._registry.routers.describe(name, None).model.key

    # -- traffic -------------------------------------------------------------------------------

    def traffic(self, name: str) -> Document:
        """See Sharing."""
        key = self.key_of(name)
        traffic, arms = self._registry.traffic_of(key), self._experiments.arms(key)
        shadows = self._experiments.shadows
        beside = {} if shadows is None else shadows.counts_of(key)
        differences = self._experiments.differences(key)
        return traffic_document(key, traffic, arms, differences, beside)

    def set_traffic(
        self, name: str, document: Mapping[str, Any] | None, by: str = OPERATOR
    ) -> Document:
        """See Sharing."""
        key = self.key_of(name)
        if (running := self._chronicle.book.of(key).running) is not None:
            raise InvalidRequest(
                f"version {running.candidate} of model '{key}' is being rolled out, which decides "
                "who gets which version; promote or abort that first"
            )
        if document is not None:
            self._check(key, document)
        self._chronicle.happens(key, Event.TRAFFIC, by, traffic=document)
        self._rollouts.share_out(key)
        self._rollouts.reload(key)
        return self.traffic(name)

    def _check(self, key: str, document: Mapping[str, Any]) -> None:
        for given in document:
            if given not in _TRAFFIC_KEYS:
                near = did_you_mean(given, _TRAFFIC_KEYS)
                known = f"; there are {', '.join(_TRAFFIC_KEYS)}"
                raise InvalidRequest(f"traffic has no '{given[:64]}'{near or known}")
        try:
            traffic: Traffic = parse_document(document)
        except InvalidConfig as error:
            raise InvalidRequest(error.message.replace("traffic.toml", "traffic", 1)) from None
        serving = self._registry.models.get(key, {})
        missing = sorted(traffic.versions - serving.keys())
        if missing:
            raise InvalidRequest(
                f"version {missing[0]} of model '{key}' is not loaded, and only what is loaded may "
                f"have a label or a part of the traffic; loaded are "
                f"{', '.join(map(str, sorted(serving)))}"
            )

    def report(self, request_id: str, name: str, value: float) -> None:
        """See Sharing."""
        _check_report(name, value)
        self._experiments.report(request_id, name, value)

    def report_version(self, model: str, version: int | None, name: str, value: float) -> None:
        """See Sharing."""
        _check_report(name, value)
        found = self._registry.routers.describe(model, version).model
        self._experiments.report_version(found.key, found.version, name, value)

    def outcomes(self) -> list[Document]:
        """See Sharing."""
        return [
            {"model": arm.key, "version": arm.version, "name": name, "count": each.count,
             "mean": each.mean}
            for arm, name, each in self._experiments.outcomes()
            if each.count
        ]  # fmt: skip

    def model_of(self, request_id: str) -> str:
        """See Sharing."""
        return self._experiments.model_of(request_id)

    def arms(self) -> Iterable[tuple[str, Arm]]:
        """See Sharing."""
        return self._experiments.all_arms()

    def shadows(self) -> Iterable[tuple[str, int, Counter[Verdict]]]:
        """See Shadowing."""
        shadows = self._experiments.shadows
        return () if shadows is None else shadows.counts()

    async def shadow_differences(self, name: str) -> list[bytes]:
        """See Shadowing."""
        key, shadows = self.key_of(name), self._experiments.shadows
        return [] if shadows is None else await asyncio.to_thread(shadows.kept, key)

    # -- roll-outs -----------------------------------------------------------------------------

    def rollouts(self) -> list[Document]:
        """See RollingOut."""
        entries = self._rollouts.entries()
        known = (key for key in sorted(entries) if entries[key].rollout or entries[key].refused)
        return [rollout_document(key, entries[key]) for key in known]

    def rollout(self, name: str) -> Document:
        """See RollingOut."""
        key = self.key_of(name)
        return rollout_document(key, self._chronicle.book.of(key))

    def rollout_history(self, name: str) -> list[Document]:
        """See RollingOut."""
        records = self._chronicle.book.of(self.key_of(name)).history
        return [{key: value for key, value in each.items() if key != "n"} for each in records]

    def change_rollout(
        self, name: str, command: str, given: Mapping[str, Any], by: str = OPERATOR
    ) -> Document:
        """See RollingOut."""
        key, rollouts = self.key_of(name), self._rollouts
        if command == "start":
            _check_keys(given, _START_KEYS)
            version, policy = given.get("version"), given.get("policy")
            if policy is not None and not isinstance(policy, dict):
                raise InvalidRequest("'policy' is to be an object of a roll-out's keys")
            try:
                rollouts.start_by_hand(key, version_of(version), policy, by)
            except InvalidConfig as error:
                raise InvalidRequest(error.message) from None
        elif command == "pause":
            rollouts.pause(key, by)
        elif command == "resume":
            rollouts.resume(key, by)
        elif command == "promote":
            rollouts.end(key, Event.PROMOTED, f"by {by}", by)
        elif command == "abort":
            _check_keys(given, ("reason",))
            reason = given.get("reason") or f"by {by}"
            if not isinstance(reason, str):
                raise InvalidRequest("'reason' is to be a text")
            rollouts.end(key, Event.ABORTED, reason[:1024], by)
        else:
            near = did_you_mean(command, COMMANDS)
            known = f"; there are {', '.join(COMMANDS)}"
            raise InvalidRequest(f"a roll-out has no command '{command[:64]}'{near or known}")
        return self.rollout(name)


def _check_report(name: str, value: float) -> None:
    if not name or len(name) > _MOST_NAME or not name.isprintable():
        raise InvalidRequest(
            f"'name' says what is reported, in 1 to {_MOST_NAME} printable characters; got "
            f"{name[:_MOST_NAME]!a}"
        )
    if not isfinite(value):
        raise InvalidRequest(f"'value' is to be a finite number, got {value}")
    if abs(value) > MOST_VALUE:
        raise InvalidRequest(f"'value' is to be at most {MOST_VALUE:g}, got {value:g}")


def version_of(given: object) -> int | None:
    """What a document says. Raises InvalidRequest."""
    if given is None or (type(given) is int and given > 0):
        return given
    raise InvalidRequest(f"'version' is to be a version's number, got {repr(given)[:64]}")


def _check_keys(given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in given:
        if key not in known:
            near = did_you_mean(key, known) or f"; there are {', '.join(known)}"
            raise InvalidRequest(f"the request has no field '{key[:64]}'{near}")
