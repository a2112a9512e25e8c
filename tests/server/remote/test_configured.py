"""The operator's own config for a model of a hub or registry."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mirror_room import Room
from scripted_source import ScriptedSource

from trivet.server.remote.configured import Configured, configured, parse_configs
from trivet.server.remote.source import Changed, RemoteError


class Hub(ScriptedSource):
    """A source of one model."""

    model = "tiny"

    def keep(self, versions: frozenset[int]) -> None:
        raise AssertionError("nobody says so here")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "tiny.pbtxt"
    made.write_bytes(b"max_batch_size: 8")
    return made


@pytest.fixture
def room(file: Path, tmp_path: Path) -> Iterator[Room]:
    hub = Hub({"tiny/1/model.onnx": b"model"}, address="hf://org/tiny")
    opened = Room(configured(hub, {"tiny": file}), tmp_path / "cache")  # type: ignore[arg-type]  # as a Source
    yield opened
    opened.close()


def test_it_lies_beside_the_version_and_follows_its_file(room: Room, file: Path) -> None:
    room.sync()
    assert room.files() == {
        "tiny/config.pbtxt": b"max_batch_size: 8",
        "tiny/1/model.onnx": b"model",
    }
    file.write_bytes(b"max_batch_size: 16")
    room.sync()
    assert room.files()["tiny/config.pbtxt"] == b"max_batch_size: 16"


def test_a_file_that_has_gone_changes_nothing_and_says_so(room: Room, file: Path) -> None:
    room.sync()
    file.unlink()
    with pytest.raises(RemoteError, match=r"hf://org/tiny: --remote-config names '.*tiny.pbtxt', "):
        room.sync()
    assert "tiny/config.pbtxt" in room.files()


def test_a_file_that_changes_while_it_is_taken_waits(file: Path, tmp_path: Path) -> None:
    source = Configured(ScriptedSource({}), "tiny", file)
    stamp = source.listing()["tiny/config.pbtxt"]
    file.write_bytes(b"another")
    with pytest.raises(Changed):
        list(source.fetch("tiny/config.pbtxt", stamp, tmp_path / "x", 0))


def test_other_sources_and_models_stay_as_they_are(file: Path) -> None:
    folder, hub = ScriptedSource({}), Hub({})
    assert configured(folder, {"tiny": file}) is folder
    assert configured(hub, {"other": file}) is hub


@pytest.mark.parametrize("given", [("tiny",), ("=x",), ("tiny=",), ("tiny=a", "tiny=b")])
def test_what_names_no_model_and_file_says_how(given: tuple[str, ...]) -> None:
    with pytest.raises(RemoteError, match="it is MODEL=FILE, once for each model"):
        parse_configs(given)
