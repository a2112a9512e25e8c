"""What was asked of the repository goes on when whoever asked leaves, until the server ends."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest
from patience import patience

from trivet.backends.api import LoadFailed
from trivet.server.control import RepositoryControl
from trivet.server.models.composition import Composition
from trivet.server.models.strangers import Strangers
from trivet.server.remote.repositories import Repositories
from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.names import Names
from trivet.server.settings import Settings


class HeldLifecycle:
    """Loads once it is let go."""

    def __init__(self) -> None:
        self.composition = Composition(Names())
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.ends: asyncio.Queue[str] = asyncio.Queue()
        self.failure: Exception | None = None

    def serving(self) -> set[str]:
        return set()

    async def load(self, folder: ModelFolder, override_json: str | None = None) -> None:
        self.begun.set()
        try:
            await self.gate.wait()
        finally:
            self.ends.put_nowait("let go" if self.gate.is_set() else "broken off")
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def lifecycle() -> HeldLifecycle:
    return HeldLifecycle()


@pytest.fixture
def control(lifecycle: HeldLifecycle, tmp_path: Path) -> RepositoryControl:
    (tmp_path / "m" / "1").mkdir(parents=True)
    settings = Settings(model_repository=(tmp_path,), model_control_mode="explicit")
    control = RepositoryControl(settings, Repositories(settings), Strangers())
    held: Any = lifecycle
    control.attach(held)
    return control


async def abandoned(control: RepositoryControl, lifecycle: HeldLifecycle) -> None:
    """Asks for a load and leaves in the middle of it."""
    caller = asyncio.create_task(control.load("m", None))
    await lifecycle.begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_load_goes_on_when_its_client_leaves(
    control: RepositoryControl, lifecycle: HeldLifecycle
) -> None:
    await abandoned(control, lifecycle)
    lifecycle.gate.set()
    assert await asyncio.wait_for(lifecycle.ends.get(), patience()) == "let go"


async def test_a_load_that_fails_when_its_client_has_left_disturbs_nobody(
    control: RepositoryControl, lifecycle: HeldLifecycle
) -> None:
    """The event loop tells of errors that nobody took."""
    told: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))
    lifecycle.failure = LoadFailed("swordfish")
    await abandoned(control, lifecycle)
    lifecycle.gate.set()
    assert await asyncio.wait_for(lifecycle.ends.get(), patience()) == "let go"
    while control._changes:
        await asyncio.sleep(0)
    gc.collect()
    assert told == []


async def test_what_nobody_expected_is_logged_when_the_client_has_left(
    control: RepositoryControl, lifecycle: HeldLifecycle, caplog: pytest.LogCaptureFixture
) -> None:
    lifecycle.failure = RuntimeError("swordfish")
    await abandoned(control, lifecycle)
    lifecycle.gate.set()
    while control._changes:
        await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is lifecycle.failure


async def test_who_stays_is_told_why_a_load_failed(
    control: RepositoryControl, lifecycle: HeldLifecycle
) -> None:
    lifecycle.failure = LoadFailed("swordfish")
    lifecycle.gate.set()
    with pytest.raises(LoadFailed, match="swordfish"):
        await control.load("m", None)


async def test_the_end_of_the_server_breaks_loads_off(
    control: RepositoryControl, lifecycle: HeldLifecycle
) -> None:
    await abandoned(control, lifecycle)
    control.close()
    assert await asyncio.wait_for(lifecycle.ends.get(), patience()) == "broken off"
