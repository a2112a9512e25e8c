"""All arms of a server, and what their clients report: every split is an experiment. Owned by the
event loop."""

from collections.abc import Iterator, Mapping
from functools import partial

from trivet.backends.api import InferRequest, InvalidRequest, Signature
from trivet.server.models.check import check_request
from trivet.server.models.model import Model
from trivet.server.models.traffic import Traffic
from trivet.server.models.watching import Watch
from trivet.server.rollouts.arms import Arm
from trivet.server.rollouts.comparing import Comparison, Difference, Outcomes
from trivet.server.rollouts.feedback import Answered
from trivet.server.rollouts.guards import COST, DIFFERENCE
from trivet.server.shadows.shadows import Mirrored, Shadows

MOST_OUTCOMES = 32
"""Names under which is reported how a version's requests turned out: each is a metric, for good."""


def _takes(signature: Signature, request: InferRequest) -> bool:
    try:
        check_request(signature, request.model_name, request)
    except InvalidRequest:
        return False
    return True


class Experiments:
    """By the models' keys and versions."""

    def __init__(self, shadows: Shadows | None = None) -> None:
        self.shadows = shadows
        self._answered: Answered[Arm] = Answered()
        self._arms: dict[str, dict[int, Arm]] = {}
        self._names: dict[str, dict[int, str]] = {}
        """What the arms of a split are called, the first one first."""
        self._signatures: dict[str, dict[int, Signature]] = {}
        """What the versions that have been part of a split take."""
        self._comparisons: dict[tuple[str, int, int, str], Comparison] = {}

    def watch_of(self, model: Model, traffic: Traffic) -> Watch | None:
        """Who looks at requests for a version; nobody, where there is neither choice nor shadow."""
        key, arm = model.key, None
        if len(traffic.split) > 1:
            self._signatures.setdefault(key, {})[model.version] = model.signature
            self._names[key] = {share.version: share.name for share in traffic.split}
            arm = self.arm(key, model.version)
        if self.shadows is None:
            return arm
        mirror = self.shadows.mirror(
            model, traffic, lambda version, value: self.arm(key, version).note(DIFFERENCE, value)
        )
        return arm if mirror is None else Mirrored(arm, mirror)

    def arm(self, key: str, version: int) -> Arm:
        """A version's."""
        arms = self._arms.setdefault(key, {})
        if version not in arms:
            refused_by_all = partial(self._refused_by_all, key)
            arms[version] = Arm(key, version, self._answered, refused_by_all)
        return arms[version]

    def _refused_by_all(self, key: str, request: InferRequest) -> bool:
        """Whether no version of a model's split takes a request."""
        signatures = self._signatures.get(key, {})
        return not any(
            _takes(signatures[version], request)
            for version in self._names.get(key, {})
            if version in signatures
        )

    def spent(self, key: str, version: int, cost: float) -> None:
        """What a request cost; of no concern where nobody looks at its version."""
        arm = self._arms.get(key, {}).get(version)
        if arm is not None:
            arm.note(COST, cost)

    def arms(self, key: str) -> Mapping[str, Arm]:
        """Those of a model's split, by name."""
        arms = self._arms.get(key, {})
        names = self._names.get(key, {})
        return {name: arms[version] for version, name in names.items() if version in arms}

    def all_arms(self) -> Iterator[tuple[str, Arm]]:
        """Of all models, with their names."""
        for key in self._names:
            yield from self.arms(key).items()

    def let_go(self, key: str) -> None:
        """Nobody takes the values of a model's arms any more."""
        for arm in self._arms.get(key, {}).values():
            arm.is_looked_at = False
            arm.take()

    def model_of(self, request_id: str) -> str:
        """The key of the model that answered a request. Raises NotFound."""
        return self._answered.arm_of(request_id).key

    def report(self, request_id: str, name: str, value: float) -> None:
        """How a request turned out. Raises InvalidRequest, NotFound."""
        self._reported(self._answered.arm_of(request_id), name, value)

    def report_version(self, key: str, version: int, name: str, value: float) -> None:
        """How a version did, for whoever reports of no request. Raises InvalidRequest."""
        self._reported(self.arm(key, version), name, value)

    def outcomes(self) -> Iterator[tuple[Arm, str, Outcomes]]:
        """All that was reported, of whatever version."""
        for arms in self._arms.values():
            for arm in arms.values():
                for name, each in arm.outcomes.items():
                    yield arm, name, each

    def _reported(self, arm: Arm, name: str, value: float) -> None:
        if name not in arm.outcomes and len(arm.outcomes) >= MOST_OUTCOMES:
            raise InvalidRequest(
                f"'{name}' is one name too many: {MOST_OUTCOMES} are known for version "
                f"{arm.version} of model '{arm.key}', and no more are kept: report under one of "
                "those"
            )
        arm.reported(name, value)
        for comparison in self._comparing(arm.key, name).values():
            comparison.update()

    def differences(self, key: str) -> Mapping[str, Mapping[str, Difference]]:
        """By what was reported, how other arms of a model differ from the first one."""
        names = {name for arm in self.arms(key).values() for name in arm.outcomes}
        return {
            name: {arm: each.difference for arm, each in self._comparing(key, name).items()}
            for name in sorted(names)
        }

    def _comparing(self, key: str, name: str) -> Mapping[str, Comparison]:
        arms = self.arms(key)
        if not arms:
            return {}
        first, *others = arms
        found = {}
        for other in others:
            pair = (arms[first], arms[other])
            which = (key, pair[0].version, pair[1].version, name)
            if which not in self._comparisons:
                self._comparisons[which] = Comparison(*(arm.outcomes_of(name) for arm in pair))
            found[other] = self._comparisons[which]
        return found
