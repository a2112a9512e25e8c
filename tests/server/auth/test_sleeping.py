"""Models of a server with keys sleep and wake for those who may use them."""

import inspect
from collections.abc import Callable

import pytest
from http_site import NobodySleeps

from trivet.server.auth.errors import PermissionDenied
from trivet.server.auth.sleeping import GuardedSleeping
from trivet.server.core import Sleeping
from trivet.server.models.sleeping.desk import SleepDesk


class TwoModels(NobodySleeps):
    """One of them is the caller's."""

    def chosen(self, name: str) -> list[str]:
        return [name] if name else ["mine", "yours"]


def require(name: str) -> None:
    if name != "mine":
        raise PermissionDenied(name)


@pytest.fixture
def sleeping() -> GuardedSleeping:
    return GuardedSleeping(TwoModels(), require, lambda name: name == "mine")


async def test_a_caller_puts_its_own_models_to_sleep_and_no_others(
    sleeping: GuardedSleeping,
) -> None:
    assert sleeping.chosen("") == ["mine"]
    await sleeping.sleep(["mine"])
    await sleeping.wake_up(["mine"], ["weights"])
    with pytest.raises(PermissionDenied):
        sleeping.chosen("yours")
    with pytest.raises(PermissionDenied):
        await sleeping.sleep(["mine", "yours"])
    with pytest.raises(PermissionDenied):
        await sleeping.wake_up(["yours"], ["weights"])
    with pytest.raises(PermissionDenied):
        sleeping.is_sleeping(["yours"])


def test_the_guard_defines_all_of_them_itself() -> None:
    def shape(found: Callable[..., object]) -> list[tuple[str, object]]:
        return [(each.name, each.default) for each in inspect.signature(found).parameters.values()]

    public = {name for name in dir(Sleeping) if not name.startswith("_")}
    assert public <= vars(GuardedSleeping).keys()
    for name in public:
        shapes = [shape(getattr(k, name)) for k in (Sleeping, GuardedSleeping, SleepDesk)]
        assert shapes[0] == shapes[1] == shapes[2], name
