"""Loads and removals of one model that overlap end with what the folder says last."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trivet.backends.api import LoadFailed
from trivet.server.models.lifecycle import Lifecycle, State
from trivet.server.models.registry import Registry
from trivet.server.repository.scan import ModelFolder


class HeldLoader:
    """Opens a version once it is released."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.gate = threading.Event()
        self.fails = False

    def plan(self, folder: ModelFolder, override_json: str | None) -> Any:
        return SimpleNamespace(folder=folder, given=None, versions=(1,), steps=frozenset())

    def open(self, plan: Any, version: int) -> Any:
        self.started.set()
        assert self.gate.wait(10)
        if self.fails:
            raise LoadFailed("swordfish")
        return SimpleNamespace(config=SimpleNamespace(metric_tags={}), instances=())


class Executor:
    """Has nothing to do."""

    async def drain(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def is_ready(self) -> bool:
        return True


def assemble(folder: ModelFolder, version: int, opened: Any, statistics: Any) -> Any:
    source = (folder.config, folder.versions[version])
    return SimpleNamespace(name=folder.name, version=version, executor=Executor(), source=source)


def folder_of(number: int) -> ModelFolder:
    return ModelFolder("m", Path("/m"), ((f"config{number}", 1, 1, 1),), {1: ()})


@pytest.fixture
def loader() -> HeldLoader:
    return HeldLoader()


@pytest.fixture
def lifecycle(loader: HeldLoader) -> Lifecycle:
    assembler: Any = SimpleNamespace(assemble=assemble)
    held: Any = loader
    return Lifecycle(Registry(), held, assembler, listener=lambda *_: None)


async def test_a_model_removed_and_copied_in_again_while_it_loads_is_known(
    loader: HeldLoader, lifecycle: Lifecycle
) -> None:
    loader.fails = True
    first = asyncio.create_task(lifecycle.load(folder_of(1)))
    await asyncio.to_thread(loader.started.wait, 5)
    removal = asyncio.create_task(lifecycle.remove("m"))
    await asyncio.sleep(0)
    second = asyncio.create_task(lifecycle.load(folder_of(2)))
    await asyncio.sleep(0)
    loader.gate.set()
    with pytest.raises(LoadFailed):
        await first
    loader.fails = False
    await removal
    await second
    assert lifecycle.known["m"].versions[1].state is State.READY
    await lifecycle.remove("m")
    assert "m" not in lifecycle._registry.models


async def test_a_model_removed_while_it_loads_is_gone(
    loader: HeldLoader, lifecycle: Lifecycle
) -> None:
    loading = asyncio.create_task(lifecycle.load(folder_of(1)))
    await asyncio.to_thread(loader.started.wait, 5)
    removal = asyncio.create_task(lifecycle.remove("m"))
    await asyncio.sleep(0)
    loader.gate.set()
    await asyncio.gather(loading, removal)
    async with asyncio.timeout(5):
        while "m" in lifecycle.known:
            await asyncio.sleep(0.001)
    assert "m" not in lifecycle._registry.models
