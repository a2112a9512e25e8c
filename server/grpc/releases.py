"""Roll-outs, traffic and feedback over gRPC: trivet.Releases, a service of our own."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from trivet.backends.api import InvalidRequest
from trivet.protos import releases_pb2 as pb
from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.core import Releasing
from trivet.server.grpc.handlers import plain
from trivet.server.grpc.transport import Rows, Unary

PREFIX = "/trivet.Releases/"
_MEANS_NONE: tuple[object, ...] = (None, "", {}, [])


class ReleaseRpcs:
    """The handlers."""

    def __init__(self, core: Releasing) -> None:
        self._core = core

    def rows(self) -> Rows:
        """The service's table."""
        traffic, admin = pb.TrafficRequest, Scope.ADMIN
        return {
            PREFIX + "Traffic": _row(plain(traffic, self._traffic), Scope.ANY),
            PREFIX + "SetTraffic": _row(plain(pb.SetTrafficRequest, self._set_traffic), admin),
            PREFIX + "ResetTraffic": _row(plain(traffic, self._reset_traffic), admin),
            PREFIX + "Rollouts": _row(plain(pb.RolloutsRequest, self._rollouts), admin),
            PREFIX + "Rollout": _row(plain(pb.RolloutRequest, self._rollout), admin),
            PREFIX + "RolloutHistory": _row(plain(pb.RolloutRequest, self._history), admin),
            PREFIX + "ChangeRollout": _row(plain(pb.ChangeRolloutRequest, self._change), admin),
            PREFIX + "Feedback": Unary(
                plain(pb.FeedbackRequest, self._feedback), Scope.INFER, Api.INFERENCE
            ),
        }

    def _traffic(self, request: pb.TrafficRequest) -> Message:
        return _traffic(self._core.releases.traffic(request.model))

    def _set_traffic(self, request: pb.SetTrafficRequest) -> Message:
        split = {share.arm: share.percent for share in request.split}
        if len(split) < len(request.split):
            raise InvalidRequest("split has an arm twice; add the two up")
        document = {
            "labels": dict(request.labels),
            "split": split,
            "sticky": list(request.sticky),
        }
        return _traffic(self._core.releases.set_traffic(request.model, document))

    def _reset_traffic(self, request: pb.TrafficRequest) -> Message:
        return _traffic(self._core.releases.set_traffic(request.model, None))

    def _rollouts(self, _: pb.RolloutsRequest) -> Message:
        return pb.RolloutsResponse(rollouts=map(_rollout, self._core.releases.rollouts()))

    def _rollout(self, request: pb.RolloutRequest) -> Message:
        return _rollout(self._core.releases.rollout(request.model))

    def _history(self, request: pb.RolloutRequest) -> Message:
        records = self._core.releases.rollout_history(request.model)
        return pb.RolloutHistoryResponse(records=map(_happened, records))

    def _change(self, request: pb.ChangeRolloutRequest) -> Message:
        given: dict[str, Any] = {}
        if request.command == "start":
            given = {"version": request.version or None, "policy": None}
            if request.HasField("policy"):
                given["policy"] = _policy(request.policy)
        elif request.command == "abort":
            given = {"reason": request.reason}
        releases = self._core.releases
        return _rollout(releases.change_rollout(request.model, request.command, given))

    def _feedback(self, request: pb.FeedbackRequest) -> Message:
        self._core.releases.report(request.request_id, request.name, request.value)
        return pb.FeedbackResponse()


def _row(handler: Callable[..., None], scope: Scope) -> Unary:
    return Unary(handler, scope, Api.MODEL_REPOSITORY)


def _policy(policy: pb.Policy) -> dict[str, Any]:
    """As a table of a file has it."""
    scalars = ("bake_s", "min_samples", "max_step_s", "false_alarm")
    table: dict[str, Any] = {
        name: getattr(policy, name) for name in scalars if policy.HasField(name)
    }
    if policy.steps:
        table["steps"] = list(policy.steps)
    if policy.guards:
        table["guards"] = dict(policy.guards)
    return table


def _traffic(document: Mapping[str, Any]) -> pb.TrafficInForce:
    message = pb.TrafficInForce(
        model=document["model"], labels=document["labels"], sticky=document["sticky"]
    )
    for arm, percent in document["split"].items():
        message.split.add(arm=arm, percent=percent)
    for name, arm in document["arms"].items():
        outcomes = [pb.Outcome(name=each, **values) for each, values in arm["outcomes"].items()]
        message.arms.add(**{**arm, "name": name, "outcomes": outcomes})
    for outcome, arms in document["differences"].items():
        for name, difference in arms.items():
            message.differences.add(outcome=outcome, arm=name, **difference)
    return message


def _rollout(document: Mapping[str, Any]) -> pb.RolloutState:
    fields = {key: value for key, value in document.items() if value not in _MEANS_NONE}
    fields["refused"] = {int(version): why for version, why in document["refused"].items()}
    fields["guards"] = [pb.Guard(**guard) for guard in document.get("guards", ())]
    return pb.RolloutState(**fields)


def _happened(record: Mapping[str, Any]) -> pb.Happened:
    return pb.Happened(
        at=record["at"],
        by=record["by"],
        event=record["event"],
        version=record.get("candidate", record.get("version", 0)),
        reason=record.get("reason", ""),
    )
