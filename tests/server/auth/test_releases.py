"""Roll-outs and traffic of a server with keys: a caller's models alone, in the name of its key."""

import inspect
from collections import Counter
from typing import Any

import pytest

from trivet.backends.api import NotFound
from trivet.server.auth.caller import Caller, current_caller
from trivet.server.auth.errors import PermissionDenied
from trivet.server.auth.keys import Key
from trivet.server.auth.releases import GuardedReleases
from trivet.server.core import Releases
from trivet.server.rollouts.arms import Arm
from trivet.server.rollouts.desk import ReleaseDesk
from trivet.server.shadows.mirror import Verdict


class Recorded:
    """`Releases` that keep in whose name they are asked."""

    def __init__(self) -> None:
        self.by: list[str] = []

    def traffic(self, name: str) -> dict[str, Any]:
        return {"model": name}

    def set_traffic(self, name: str, document: object, by: str = "operator") -> dict[str, Any]:
        self.by.append(by)
        return {"model": name}

    def model_of(self, request_id: str) -> str:
        return request_id

    def report(self, request_id: str, name: str, value: float) -> None:
        raise NotFound("it was let through")

    def report_version(self, model: str, version: int | None, name: str, value: float) -> None:
        raise NotFound("it was let through")

    def outcomes(self) -> list[dict[str, Any]]:
        return [{"model": "mine"}, {"model": "yours"}]

    def arms(self) -> list[tuple[str, Arm]]:
        return []

    def shadows(self) -> list[tuple[str, int, Counter[Verdict]]]:
        return []

    async def shadow_differences(self, name: str) -> list[bytes]:
        return [name.encode()]

    def rollouts(self) -> list[dict[str, Any]]:
        return [{"model": "mine"}, {"model": "yours"}]

    def rollout(self, name: str) -> dict[str, Any]:
        return {"model": name}

    def rollout_history(self, name: str) -> list[dict[str, Any]]:
        return [{"model": name}]

    def change_rollout(
        self, name: str, command: str, given: object, by: str = "operator"
    ) -> dict[str, Any]:
        self.by.append(by)
        return {"model": name}


def guarded(recorded: Recorded) -> GuardedReleases:
    def require(name: str) -> None:
        caller = current_caller.get()
        assert caller is not None
        caller.require_model(name)

    return GuardedReleases(recorded, require)


@pytest.fixture(autouse=True)
def caller() -> Any:
    token = current_caller.set(Caller(Key("team", b"", frozenset(), models=("mine",)), None))
    yield
    current_caller.reset(token)


def test_ones_own_are_done_in_the_name_of_the_key() -> None:
    recorded = Recorded()
    releases = guarded(recorded)
    releases.set_traffic("mine", None)
    releases.change_rollout("mine", "abort", {})

    assert recorded.by == ["key 'team'", "key 'team'"]
    assert releases.rollouts() == [{"model": "mine"}]
    assert releases.rollout("mine") == releases.traffic("mine") == {"model": "mine"}
    with pytest.raises(NotFound, match="it was let through"):
        releases.report("mine", "liked", 1.0)


def test_others_are_refused() -> None:
    releases = guarded(Recorded())
    for ask in (
        lambda: releases.traffic("yours"),
        lambda: releases.set_traffic("yours", None),
        lambda: releases.model_of("yours"),
        lambda: releases.report("yours", "liked", 1.0),
        lambda: releases.rollout("yours"),
        lambda: releases.rollout_history("yours"),
        lambda: releases.change_rollout("yours", "promote", {}),
    ):
        with pytest.raises(PermissionDenied):
            ask()


def test_the_guard_defines_all_of_them_itself() -> None:
    public = {name for name in dir(Releases) if not name.startswith("_")}

    assert public <= vars(GuardedReleases).keys()
    for name in public:
        shapes = [
            [(each.name, each.default) for each in inspect.signature(found).parameters.values()]
            for found in (getattr(kind, name) for kind in (Releases, GuardedReleases, ReleaseDesk))
        ]
        assert shapes[0] == shapes[1] == shapes[2], name
