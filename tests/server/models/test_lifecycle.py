"""Loads, unloads and removals of one model that overlap end with what was asked last."""

import asyncio
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from patience import patience

from trivet.backends.api import LoadFailed, UnreadableFiles
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.known import State, Status
from trivet.server.models.lifecycle import Lifecycle
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.registry import Registry
from trivet.server.repository.layout import ModelFolder


class HeldLoader:
    """Opens a version once it is released."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.gate = threading.Event()
        self.fails = False
        self.num_failures = 0
        """How many loads fail before one succeeds."""

    def plan(self, folder: ModelFolder, override_json: str | None) -> Any:
        return LoadPlan(folder, ModelConfig(), (1,), is_overridden=override_json is not None)

    def open(self, plan: Any, version: int) -> Any:
        self.started.set()
        assert self.gate.wait(patience())
        if self.fails or self.num_failures:
            self.num_failures = max(0, self.num_failures - 1)
            raise LoadFailed("swordfish")
        return SimpleNamespace(config=SimpleNamespace(metric_tags={}), instances=())


class HalfUnreadable(HeldLoader):
    """Of two versions: the disk fails at the first at once, the second is held."""

    def plan(self, folder: ModelFolder, override_json: str | None) -> Any:
        return LoadPlan(folder, ModelConfig(), (1, 2))

    def open(self, plan: Any, version: int) -> Any:
        if version == 1:
            raise UnreadableFiles("Input/output error")
        return super().open(plan, version)


class Executor:
    """Drains once it is idle, as it is at first."""

    def __init__(self) -> None:
        self.idle = asyncio.Event()
        self.idle.set()

    async def drain(self) -> None:
        await self.idle.wait()

    async def close(self) -> None:
        pass

    def is_ready(self) -> bool:
        return True


def assemble(plan: LoadPlan, version: int, opened: Any, statistics: Any) -> Any:
    name, executor = plan.folder.name, Executor()
    return SimpleNamespace(
        key=name,
        version=version,
        executor=executor,
        source=plan.source_of(version),
        sleeps=None,
    )


def folder_of(number: int) -> ModelFolder:
    return ModelFolder("m", Path("/m"), ((f"config{number}", 1, 1, 1),), {1: ()})


@pytest.fixture
def loader() -> HeldLoader:
    return HeldLoader()


@pytest.fixture
def lifecycle(loader: HeldLoader) -> Lifecycle:
    return lifecycle_of(loader)


def lifecycle_of(loader: Any, **options: Any) -> Lifecycle:
    assembler: Any = SimpleNamespace(assemble=assemble)
    return Lifecycle(Registry(), loader, assembler, listener=lambda *_: None, **options)


async def test_what_cannot_be_read_is_not_owed_while_it_is_loaded() -> None:
    """Or each look would queue one more load behind a slow one."""
    loader = HalfUnreadable()
    lifecycle = lifecycle_of(loader)
    files = ModelFolder("m", Path("/m"), (), {1: (), 2: ()})
    loading = asyncio.create_task(lifecycle.load(files))
    async with asyncio.timeout(patience()):
        while "m" not in lifecycle.known or not lifecycle.known["m"].is_unreadable:
            await asyncio.sleep(0.001)
    assert lifecycle.unreadable() == []
    loader.gate.set()
    with pytest.raises(LoadFailed, match="Input/output error"):
        await loading
    assert lifecycle.unreadable() == ["m"]


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


async def test_the_end_of_a_version_that_was_replaced_is_told(loader: HeldLoader) -> None:
    """What has been loaded is frozen for the garbage collector until something is told."""
    loader.gate.set()
    ended = asyncio.Event()
    lifecycle = lifecycle_of(loader, on_end=ended.set)
    await lifecycle.load(folder_of(1))
    executor = lifecycle._registry.models["m"][1].executor
    assert isinstance(executor, Executor)
    executor.idle.clear()
    await lifecycle.load(folder_of(2))
    await asyncio.sleep(0)
    assert not ended.is_set(), "it still answers what it has taken"
    executor.idle.set()
    async with asyncio.timeout(patience()):
        await ended.wait()


async def test_a_model_removed_while_it_loads_is_gone(
    loader: HeldLoader, lifecycle: Lifecycle
) -> None:
    loading = asyncio.create_task(lifecycle.load(folder_of(1)))
    await asyncio.to_thread(loader.started.wait, 5)
    removal = asyncio.create_task(lifecycle.remove("m"))
    await asyncio.sleep(0)
    loader.gate.set()
    await asyncio.gather(loading, removal)
    async with asyncio.timeout(patience()):
        while "m" in lifecycle.known:
            await asyncio.sleep(0.001)
    assert "m" not in lifecycle._registry.models


def busy(lifecycle: Lifecycle) -> asyncio.Event:
    """Makes the version that serves have a request in progress, until the event is set."""
    executor: Any = lifecycle._registry.models["m"][1].executor
    executor.idle.clear()
    idle: asyncio.Event = executor.idle
    return idle


def status(lifecycle: Lifecycle) -> Status:
    return lifecycle.known["m"].versions[1]


async def settled(lifecycle: Lifecycle) -> None:
    """Returns once no version drains any more."""
    async with asyncio.timeout(patience()):
        while lifecycle._retiring:
            await asyncio.sleep(0.001)


async def test_a_version_loaded_again_while_it_drains_is_ready_after_that_too(
    loader: HeldLoader, lifecycle: Lifecycle
) -> None:
    loader.gate.set()
    await lifecycle.load(folder_of(1))
    idle = busy(lifecycle)
    await lifecycle.unload("m")
    assert status(lifecycle).state is State.UNLOADING
    await lifecycle.load(folder_of(1))
    idle.set()
    await settled(lifecycle)
    assert status(lifecycle).state is State.READY


async def test_why_a_version_did_not_load_again_outlasts_its_draining(
    loader: HeldLoader, lifecycle: Lifecycle
) -> None:
    loader.gate.set()
    await lifecycle.load(folder_of(1))
    idle = busy(lifecycle)
    await lifecycle.unload("m")
    loader.fails = True
    with pytest.raises(LoadFailed):
        await lifecycle.load(folder_of(1))
    idle.set()
    await settled(lifecycle)
    assert status(lifecycle).reason == "swordfish"


async def test_a_load_from_the_folder_takes_an_override_back(
    loader: HeldLoader, lifecycle: Lifecycle
) -> None:
    loader.gate.set()
    await lifecycle.load(folder_of(1), "{}")
    overridden = lifecycle._registry.models["m"][1]
    await lifecycle.load(folder_of(1))
    plain = lifecycle._registry.models["m"][1]
    assert plain is not overridden
    await lifecycle.load(folder_of(1))
    assert lifecycle._registry.models["m"][1] is plain, "loaded though nothing has changed"


async def test_the_failure_of_a_model_that_is_unloaded_is_forgotten(
    loader: HeldLoader, lifecycle: Lifecycle
) -> None:
    """Or a server with strict readiness would never be ready again."""
    loader.gate.set()
    loader.fails = True
    with pytest.raises(LoadFailed):
        await lifecycle.load(folder_of(1))
    assert status(lifecycle).reason == "swordfish"
    await lifecycle.unload("m")
    assert status(lifecycle) == Status(State.UNAVAILABLE, "unloaded")
    lifecycle.note_problem("n", "no such folder")
    await lifecycle.unload("n")
    assert lifecycle.known["n"].failure == ""


@pytest.mark.parametrize(("num_failures", "loads"), [(2, True), (3, False)])
async def test_a_load_that_failed_is_tried_again_as_often_as_was_said(
    *, loader: HeldLoader, num_failures: int, loads: bool
) -> None:
    loader.gate.set()
    loader.num_failures = num_failures
    lifecycle = lifecycle_of(loader, load_retries=2)
    with nullcontext() if loads else pytest.raises(LoadFailed, match="swordfish"):
        await lifecycle.load(folder_of(1))
    assert (lifecycle.serving() == {"m"}) is loads
