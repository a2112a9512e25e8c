"""Which adapters serve when loads are given up, fail for a while, or never end."""

import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from patience import patience

from trivet.backends.api import InstanceDied, Unavailable
from trivet.backends.llm.messages import AdapterRead
from trivet.backends.llm.serving.adapter_folders import look
from trivet.backends.llm.serving.shelf import AdapterShelf


class Engine:
    """Reads adapters at once, unless the test has it wait."""

    def __init__(self) -> None:
        self.shelf: AdapterShelf
        self.answers = True
        self.is_down = False
        self.known: set[str] = set()

    def load_adapter(self, key: str, name: str, folder: str) -> None:
        if self.is_down:
            raise InstanceDied("it is being restarted")
        self.known.add(key)
        if self.answers:
            read = AdapterRead(key, vocabulary_size=96)
            asyncio.get_running_loop().call_soon(self.shelf.note, read)

    def unload_adapter(self, key: str) -> None:
        self.known.discard(key)


class Room:
    """A shelf over one adapter, 'a'."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("one")
        self.engine = Engine()
        made: Any = lambda _, read, __: SimpleNamespace(key=read.key)  # noqa: E731
        self.shelf = self.engine.shelf = AdapterShelf("base", root, self.engine, made)

    def write(self, text: str) -> None:
        (self.root / "a").mkdir(parents=True, exist_ok=True)
        (self.root / "a" / "adapter_config.json").write_text(text)

    @property
    def serving(self) -> set[str]:
        return {cast("Any", executor).key for executor in self.shelf.ready.values()}

    async def begin_load(self) -> "asyncio.Task[None]":
        """A load that the engine has, and does not answer."""
        self.engine.answers = False
        num_known = len(self.engine.known)
        task = asyncio.ensure_future(self.shelf.load("a", "a", in_place=True))
        async with asyncio.timeout(patience()):
            while len(self.engine.known) == num_known:
                await asyncio.sleep(0.001)
        return task


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "adapters")


def test_a_load_that_is_given_up_changes_nothing(room: Room) -> None:
    async def give_up() -> None:
        await room.shelf.follow()
        room.write("another")
        load = await room.begin_load()
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        assert room.serving == room.engine.known == {"a#1"}
        room.engine.answers = True
        await room.shelf.follow()
        assert room.serving == room.engine.known == {"a#3"}

    asyncio.run(give_up())


def test_what_was_found_while_the_engine_restarts_is_tried_again(room: Room) -> None:
    async def restart() -> None:
        room.engine.is_down = True
        await room.shelf.follow()
        assert "restarted" in room.shelf.troubles["a"]
        room.engine.is_down = False
        room.shelf.restore()
        async with asyncio.timeout(patience()):
            while not room.serving:
                await asyncio.sleep(0.001)
        assert room.shelf.troubles == {}

    asyncio.run(restart())


def test_trouble_ends_with_the_folder(room: Room) -> None:
    async def remove() -> None:
        room.engine.is_down = True
        await room.shelf.follow()
        shutil.rmtree(room.root / "a")
        await room.shelf.follow()
        assert room.shelf.troubles == {}

    asyncio.run(remove())


def test_a_load_ends_with_the_model(room: Room) -> None:
    async def close() -> None:
        load = await room.begin_load()
        room.shelf.close()
        with pytest.raises(Unavailable, match=r"lora_path: .* the model is being unloaded"):
            await asyncio.wait_for(load, patience())

    asyncio.run(close())


def test_a_file_that_vanishes_during_a_look_hides_no_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").write_text("x")
    (tmp_path / "b" / "passing.tmp").write_text("x")
    iterdir = Path.iterdir
    is_file = Path.is_file

    def list_late(self: Path) -> Any:
        if self.name == "gone":
            shutil.rmtree(self)
        return iterdir(self)

    def vanish(self: Path) -> bool:
        found = is_file(self)
        if self.suffix == ".tmp":
            self.unlink()
        return found

    monkeypatch.setattr(Path, "iterdir", list_late)
    monkeypatch.setattr(Path, "is_file", vanish)
    found = look(tmp_path)
    assert {name: [each[0] for each in stamps] for name, stamps in found.items()} == {
        "a": ["kept"],
        "b": ["kept"],
    }
