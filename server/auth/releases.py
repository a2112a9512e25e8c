"""Roll-outs and traffic for servers with keys: a caller sees and changes those of its models."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trivet.backends.api.naming import name_in
from trivet.server.auth.caller import current_caller
from trivet.server.core import Releases
from trivet.server.rollouts.arms import Arm
from trivet.server.shadows.mirror import Verdict


class GuardedReleases:
    """`Releases` in front of others: every method that names a model may also raise
    PermissionDenied, and what is done is done in the name of the caller's key."""

    def __init__(self, releases: Releases, require: Callable[[str], None]) -> None:
        """`require` raises PermissionDenied for a model that is not the caller's."""
        self._releases = releases
        self._require = require

    def traffic(self, name: str) -> dict[str, Any]:
        """See Sharing."""
        self._require(name)
        return self._releases.traffic(name)

    def set_traffic(
        self, name: str, document: Mapping[str, Any] | None, by: str = "operator"
    ) -> dict[str, Any]:
        """See Sharing."""
        self._require(name)
        return self._releases.set_traffic(name, document, _caller(by))

    def model_of(self, request_id: str) -> str:
        """See Sharing."""
        model = self._releases.model_of(request_id)
        self._require(model)
        return model

    def report(self, request_id: str, name: str, value: float) -> None:
        """See Sharing."""
        self._require(self._releases.model_of(request_id))
        self._releases.report(request_id, name, value)

    def report_version(self, model: str, version: int | None, name: str, value: float) -> None:
        """See Sharing."""
        self._require(model)
        self._releases.report_version(model, version, name, value)

    def outcomes(self) -> list[dict[str, Any]]:
        """See Sharing. Of the caller's models."""
        return [each for each in self._releases.outcomes() if _is_visible(each["model"])]

    def arms(self) -> Iterable[tuple[str, Arm]]:
        """See Sharing. Of all models: the metrics page has a scope of its own."""
        return self._releases.arms()

    def shadows(self) -> Iterable[tuple[str, int, Counter[Verdict]]]:
        """See Shadowing. Of all models, as `arms`."""
        return self._releases.shadows()

    async def shadow_differences(self, name: str) -> list[bytes]:
        """See Shadowing."""
        self._require(name)
        return await self._releases.shadow_differences(name)

    def rollouts(self) -> list[dict[str, Any]]:
        """See RollingOut. The caller's."""
        return [each for each in self._releases.rollouts() if _is_visible(each["model"])]

    def rollout(self, name: str) -> dict[str, Any]:
        """See RollingOut."""
        self._require(name)
        return self._releases.rollout(name)

    def rollout_history(self, name: str) -> list[dict[str, Any]]:
        """See RollingOut."""
        self._require(name)
        return self._releases.rollout_history(name)

    def change_rollout(
        self, name: str, command: str, given: Mapping[str, Any], by: str = "operator"
    ) -> dict[str, Any]:
        """See RollingOut."""
        self._require(name)
        return self._releases.change_rollout(name, command, given, _caller(by))


def _caller(by: str) -> str:
    caller = current_caller.get()
    return by if caller is None else f"key '{caller.key.name}'"


def _is_visible(model: str) -> bool:
    caller = current_caller.get()
    return caller is None or caller.may_use(name_in(model))
