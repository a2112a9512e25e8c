"""Environments are made beside the loads: those of other models do not wait, and the end of the
server does not either."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from patience import patience

from trivet.backends.api import LoadFailed
from trivet.server.models.catalog import RegistryCatalog
from trivet.server.models.loader import Loader as RealLoader
from trivet.server.models.loader import NotMade
from trivet.server.models.opening import Opener
from trivet.server.models.registry import Registry


class Loader:
    """Models named with "packages" need an environment, which is made once it is released."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.made: set[str] = set()
        self.num_made = 0
        self.fails = False
        self.stays = True

    def open(self, plan: Any, version: int) -> Any:
        if "packages" in plan.name and plan.name not in self.made:
            raise NotMade(SimpleNamespace(key="k", model=plan.name))
        return plan.name

    def make(self, recipe: Any, stop: threading.Event) -> None:
        self.begun.release()
        self.num_made += 1
        while not self.gate.wait(0.001):
            if stop.is_set():
                raise LoadFailed("closed")
        if self.fails:
            raise LoadFailed("swordfish")
        if self.stays:
            self.made.add(recipe.model)


@pytest.fixture
def loader() -> Loader:
    return Loader()


def opener(loader: Any, *, threads: int = 1, retries: int = 0) -> Any:
    return Opener(loader, threads=threads, retries=retries)


def plan(name: str) -> Any:
    return SimpleNamespace(name=name, folder=SimpleNamespace(key=name))


async def begun(loader: Loader, count: int = 1) -> None:
    for _ in range(count):
        assert await asyncio.to_thread(loader.begun.acquire, timeout=patience())


async def test_other_models_load_while_environments_are_made(loader: Loader) -> None:
    """With one thread for loads, and more environments than threads for these."""
    opening = opener(loader)
    slow = [asyncio.create_task(opening.open(plan(f"packages{i}"), 1)) for i in range(6)]
    await begun(loader)

    assert await asyncio.wait_for(opening.open(plan("plain"), 1), patience()) == "plain"

    assert not any(task.done() for task in slow)
    loader.gate.set()
    assert sorted(await asyncio.gather(*slow)) == [f"packages{i}" for i in range(6)]
    assert loader.num_made == 6
    opening.close()


async def test_one_that_cannot_be_made_is_a_load_s_failure(loader: Loader) -> None:
    loader.fails = True
    loader.gate.set()
    opening = opener(loader, retries=2)

    with pytest.raises(LoadFailed, match="swordfish"):
        await opening.open(plan("packages"), 1)

    assert loader.num_made == 3, "it is tried as often as the load"
    opening.close()


async def test_nothing_foreign_comes_of_making_one() -> None:
    """Nobody would end the load."""

    class Broken:
        def make(self, recipe: Any, stop: threading.Event) -> Any:
            raise RecursionError("maximum recursion depth exceeded")

    environments: Any = Broken()
    loader = RealLoader(RegistryCatalog(Registry()), environments=environments)
    recipe: Any = SimpleNamespace(key="k", model="m")

    with pytest.raises(LoadFailed, match="the environment of model 'm' cannot be made"):
        loader.make(recipe, threading.Event())


async def test_the_end_of_the_server_gives_up_what_is_being_made(loader: Loader) -> None:
    opening = opener(loader)
    task = asyncio.create_task(opening.open(plan("packages"), 1))
    await begun(loader)

    opening.stop_making()

    with pytest.raises(LoadFailed, match="closed"):
        await asyncio.wait_for(task, patience())
    opening.close()


async def test_an_environment_that_never_stays_ends_the_load(loader: Loader) -> None:
    loader.gate.set()
    loader.stays = False
    with pytest.raises(LoadFailed, match=r"'packages' was made 3 times and was gone"):
        await opener(loader).open(plan("packages"), 1)
    assert loader.num_made == 3
