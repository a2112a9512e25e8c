"""Full collections look at what requests have made, not at modules and models."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import write_identity

from trivet.server.app import Server
from trivet.server.models import garbage
from trivet.server.models.garbage import LoadedObjects
from trivet.server.settings import Settings


@pytest.fixture
def loaded() -> Iterator[LoadedObjects]:
    loaded = LoadedObjects()
    yield loaded
    loaded.close()


async def _num_seen_and_frozen(repository: Path) -> tuple[int, int]:
    """Objects that a full collection of a server that has started would look at, and the others."""
    settings = Settings(
        model_repository=(repository,),
        http_port=0,
        grpc_port=0,
        allow_metrics=False,
        http_address="127.0.0.1",
        grpc_address="127.0.0.1",
        model_control_mode="none",
    )
    server = Server(settings)
    await server.start()
    try:
        return len(gc.get_objects()), gc.get_freeze_count()
    finally:
        await server.stop()


def test_a_started_server_has_little_that_a_full_collection_looks_at(tmp_path: Path) -> None:
    write_identity(tmp_path, "identity")
    num_seen, num_frozen = asyncio.run(_num_seen_and_frozen(tmp_path))
    assert num_seen * 20 < num_frozen
    assert gc.get_freeze_count() == 0, "what is frozen stays so after the server has ended"


def test_garbage_that_was_frozen_is_collected_when_models_change(loaded: LoadedObjects) -> None:
    class Circle:
        def __init__(self) -> None:
            self.me = self

    gone: list[str] = []
    circle = Circle()
    loaded.settle()
    watch = weakref.finalize(circle, gone.append, "gone")
    del circle
    gc.collect()
    assert watch.alive, "frozen objects are not looked at"
    loaded.settle()
    assert gone == ["gone"]


def test_models_that_change_together_are_one_pass(
    loaded: LoadedObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "SETTLE_S", 0.0)
    passes: list[str] = []

    async def change_three_models() -> None:
        loaded.settle()
        monkeypatch.setattr(loaded, "settle", lambda: passes.append("pass"))
        for _ in range(3):
            loaded.changed()
        while not passes:
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(change_three_models())
    assert passes == ["pass"]


def test_nothing_is_frozen_while_the_first_models_load(
    loaded: LoadedObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "SETTLE_S", 0.0)

    async def load() -> None:
        loaded.changed()
        await asyncio.sleep(0)

    asyncio.run(load())
    assert gc.get_freeze_count() == 0
