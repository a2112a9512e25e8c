"""The guard covers the core method by method: what it does not define cannot be asked."""

import inspect
from collections.abc import Iterator

import pytest
from http_site import FakeCore

from trivet.server.auth.core import GuardedCore
from trivet.server.core import Core
from trivet.server.hall import Hall

KEPT = {"shared_memory", "tracing", "releases", "sleeping"}
"""What is no method. The last two are guarded by themselves."""


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.fixture
def guard() -> Iterator[GuardedCore]:
    core = FakeCore()
    yield GuardedCore(core)
    core.shared_memory.close()


def test_the_guard_defines_all_of_the_core_itself() -> None:
    assert public(Core) - KEPT <= vars(GuardedCore).keys()


def test_the_guard_inherits_nothing_and_passes_nothing_on_that_it_does_not_define(
    guard: GuardedCore,
) -> None:
    assert GuardedCore.__mro__ == (GuardedCore, object)
    assert not {"__getattr__", "__getattribute__"} & vars(GuardedCore).keys()
    assert public(GuardedCore) == public(Core) - KEPT
    assert {name for name in vars(guard) if not name.startswith("_")} == KEPT


@pytest.mark.parametrize("name", sorted(public(Core) - KEPT))
@pytest.mark.parametrize("kind", [GuardedCore, Hall])
def test_methods_take_what_the_core_says(kind: type, name: str) -> None:
    def shape(owner: type) -> list[tuple[str, object, object]]:
        found = inspect.signature(inspect.getattr_static(owner, name)).parameters.values()
        return [(each.name, each.kind, each.default) for each in found]

    assert shape(kind) == shape(Core)
