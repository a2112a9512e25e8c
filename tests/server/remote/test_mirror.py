"""A folder that is kept like a repository elsewhere: what is switched, what waits, what stays."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirror_room import Room
from scripted_source import Fault, ScriptedSource, broken, refused, throttled

from trivet.server.remote.chosen import Chosen
from trivet.server.remote.source import Doubtful, RemoteError, Source, Stamp, Unreachable
from trivet.server.repository.scan import scan

ADD = {"add/config.pbtxt": b"config", "add/1/model.onnx": b"first version"}


@pytest.fixture
def source() -> ScriptedSource:
    return ScriptedSource(dict(ADD))


@pytest.fixture
def room(source: ScriptedSource, tmp_path: Path) -> Iterator[Room]:
    opened = Room(source, tmp_path / "cache")
    yield opened
    opened.close()


def test_a_repository_comes_as_it_lies_there(room: Room) -> None:
    assert not room.sync()
    assert room.files() == ADD
    assert [*scan([room.tree.root]).models] == ["add"]


def test_what_has_not_changed_is_neither_asked_for_nor_touched(room: Room) -> None:
    room.sync()
    before = scan([room.tree.root]).models["add"]
    room.source.fetched.clear()
    room.source.files["add/2/model.onnx"] = b"second version"
    inode = (room.tree.root / "add/1").stat().st_ino
    room.sync()
    assert room.source.fetched == [("add/2/model.onnx", 0)]
    assert (room.tree.root / "add/1").stat().st_ino == inode
    assert scan([room.tree.root]).models["add"].versions[1] == before.versions[1]


def test_a_round_without_changes_asks_for_one_listing(room: Room) -> None:
    room.sync()
    room.source.listings = 0
    room.sync()
    assert room.source.listings == 1


def test_a_changed_version_takes_the_place_of_the_old_one_at_once(
    room: Room, source: ScriptedSource
) -> None:
    source.files["add/1/labels.txt"] = b"old"
    room.sync()
    # Whoever has opened the folder sees all of the old version, and whoever opens it now the new.
    held = os.open(room.tree.root / "add/1", os.O_RDONLY)
    source.files |= {"add/1/model.onnx": b"another", "add/1/labels.txt": b"new"}
    room.sync()
    assert (room.tree.root / "add/1/model.onnx").read_bytes() == b"another"
    assert not os.path.samestat(os.fstat(held), (room.tree.root / "add/1").stat())
    os.close(held)


def test_no_version_is_seen_before_its_config(
    room: Room, source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    link = room.cache.link

    def linked(source: Source, stamp: Stamp, into: Path) -> None:
        seen.append(sorted(room.files()))
        link(source, stamp, into)

    monkeypatch.setattr(room.cache, "link", linked)
    room.sync()
    assert seen == [[], ["add/config.pbtxt"]]


def test_what_has_gone_there_goes_here(room: Room, source: ScriptedSource) -> None:
    source.files |= {"add/2/model.onnx": b"second", "lone.onnx": b"lone", "b/1/m": b"b"}
    room.sync()
    (room.tree.root / "b/1/made_by_the_model").touch()
    for path in ("add/1/model.onnx", "lone.onnx", "b/1/m"):
        del source.files[path]
    room.sync()
    assert room.files() == source.files
    assert sorted(path.name for path in room.tree.root.iterdir()) == ["add"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"m/model.onnx": b"flat"}, {"m/1/model.onnx": b"flat", "m/config.pbtxt": b"c"}),
        ({"m/1/model.onnx": b"flat", "m/config.pbtxt": b"c"}, {"m/model.onnx": b"flat"}),
        ({"config.json": b"{}", "x/y": b"1"}, {"m/1/config.json": b"{}"}),
        ({"m/1/config.json": b"{}"}, {"config.json": b"{}", "x/y": b"1"}),
        ({"m": b"a file", "n/1/x": b"x"}, {"m/1/x": b"a folder", "n/1/x": b"x"}),
        ({"m/1/x": b"a folder", "n/1/x": b"x"}, {"m": b"a file", "n/1/x": b"x"}),
        ({"config.json": b"{}"}, {"config.json": b"{'a': 1}", "model.gguf": b"weights"}),
        ({"m": b"", "n/1/x": b"x"}, {"m/config.json": b"{}", "n/1/x": b"x"}),
        ({"n/1/x": b"x", "n/2": b""}, {"n/1/x": b"x", "n/2/x": b"x"}),
        ({"m/config.json": b"{}", "n/1/x": b"x"}, {"m": b"a file", "n/1/x": b"x"}),
    ],
)
def test_models_may_change_their_form(
    room: Room, source: ScriptedSource, before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    source.files = before
    room.sync()
    assert room.files() == before
    source.files = after
    room.sync()
    assert room.files() == after


def test_a_repository_that_is_one_model_has_its_address_s_name(tmp_path: Path) -> None:
    source = ScriptedSource({"config.json": b"{}"}, address="test://org/tiny@main")
    room = Room(source, tmp_path)
    assert room.tree.root.name == "tiny"
    room.close()


# -- what is being written ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "files", [ADD, {"config.json": b"{}", "model.gguf": b"w"}], ids=["models", "one model"]
)
def test_the_mark_of_the_repository_s_own_folder_is_nothing(
    room: Room, source: ScriptedSource, files: dict[str, bytes]
) -> None:
    source.files = {"": b"", **files}
    assert not room.sync()
    assert room.files() == files
    assert room.mirror.restore()


def test_a_version_that_grows_while_it_is_fetched_waits_for_the_next_round(
    room: Room, source: ScriptedSource
) -> None:
    room.sync()
    source.files["add/2/config.json"] = b"first file of two"
    source.files["other/1/model"] = b"whole"
    more = {"add/2/weights": b"second file of two"}
    source.fetch_faults = [Fault(before=lambda: source.files.update(more))]
    assert room.sync()
    assert room.files() == {**ADD, "other/1/model": b"whole"}
    assert not room.sync()
    assert room.files() == source.files


def test_a_file_that_is_replaced_while_it_is_fetched_waits_for_the_next_round(
    room: Room, source: ScriptedSource
) -> None:
    room.sync()
    source.files["add/2/model.onnx"] = b"not yet"
    newer = {"add/2/model.onnx": b"this one"}
    source.fetch_faults = [Fault(before=lambda: source.files.update(newer))]
    assert room.sync()
    assert room.files() == ADD
    assert not room.sync()
    assert room.files() == source.files


# -- a source that fails -----------------------------------------------------------------------


def test_what_is_there_stays_when_the_source_vanishes(room: Room, source: ScriptedSource) -> None:
    room.sync()
    source.listing_faults = [refused()]
    with pytest.raises(RemoteError, match="may not be read"):
        room.sync()
    assert room.files() == ADD


def test_what_is_there_stays_when_the_source_is_empty(room: Room, source: ScriptedSource) -> None:
    room.sync()
    source.files.clear()
    with pytest.raises(RemoteError, match="holds no files any more"):
        room.sync()
    assert room.files() == ADD


def test_a_throttled_source_is_asked_again(room: Room, source: ScriptedSource) -> None:
    source.listing_faults = [throttled(), throttled()]
    source.fetch_faults = [broken(), broken()]
    room.sync()
    assert room.files() == ADD


def test_a_source_that_stays_away_is_given_up(room: Room, source: ScriptedSource) -> None:
    source.listing_faults = [throttled()] * 3
    with pytest.raises(Unreachable, match="SlowDown"):
        room.sync()
    assert source.listings == 3


def test_a_broken_fetch_goes_on_where_it_broke(room: Room, source: ScriptedSource) -> None:
    source.files = {"m/1/weights": bytes(range(100))}
    # More breaks in a row than tries: each brought something.
    source.fetch_faults = [broken(after=20), broken(after=20), broken(after=20), broken(after=20)]
    room.sync()
    assert [at for _, at in source.fetched] == [0, 20, 40, 60, 80]
    assert room.files() == source.files


def test_a_model_that_does_not_come_keeps_no_other_back(
    room: Room, source: ScriptedSource, caplog: pytest.LogCaptureFixture
) -> None:
    room.sync()
    source.files |= {"bad/1/model": b"never", "good/1/model": b"comes"}
    source.fetch_faults = [Fault(refused())]
    with caplog.at_level(logging.WARNING):
        room.sync()
    assert len(room.files()) == 3
    (model,) = room.mirror.left_out
    assert f"model '{model}' is left as it is: test://place/models may not be read" in caplog.text
    assert "test://" not in room.mirror.left_out[model]
    room.sync()
    assert room.files() == source.files
    assert room.mirror.left_out == {}


def test_a_start_without_one_model_serves_the_others(room: Room, source: ScriptedSource) -> None:
    source.files |= {"bad/1/model": b"never", "evil/1/../../../x": b"x"}
    source.fetch_faults = [Fault(refused())]
    room.sync()
    assert room.files()
    assert len(room.mirror.left_out) == 2
    assert "cannot be a file" in room.mirror.left_out["evil"]


def test_whoever_gets_no_model_at_all_is_told_why(room: Room, source: ScriptedSource) -> None:
    source.fetch_faults = [Fault(refused())] * 2
    with pytest.raises(RemoteError, match="may not be read"):
        room.sync()


def test_content_that_is_not_what_the_source_promises_is_fetched_anew(
    room: Room, source: ScriptedSource
) -> None:
    source.tells_digests = True
    source.files = {"m/1/weights": b"right"}
    source.fetch_faults = [Fault(content=b"wrong")]
    room.sync()
    assert room.files() == source.files
    assert source.fetched == [("m/1/weights", 0)] * 2


def test_content_that_is_never_right_is_not_served(room: Room, source: ScriptedSource) -> None:
    source.tells_digests = True
    source.files = {"m/1/weights": b"right"}
    source.fetch_faults = [Fault(content=b"wrong")] * 3
    with pytest.raises(RemoteError, match="is not what the source says"):
        room.sync()
    assert room.files() == {}


def test_a_disk_that_is_too_small_is_told_before_anything_comes(
    room: Room, source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.cache, "num_bytes_free", lambda: 10)
    with pytest.raises(RemoteError, match=r"19 bytes that are not here yet.*--remote-cache"):
        room.sync()
    assert source.fetched == []


# -- names -------------------------------------------------------------------------------------


def test_a_model_with_a_name_that_cannot_be_a_file_keeps_no_other_back(
    room: Room, source: ScriptedSource, caplog: pytest.LogCaptureFixture
) -> None:
    room.sync()
    source.files |= {"evil/1/../../../x": b"x", "evil/1/model": b"y", "add/2/model": b"2"}
    with caplog.at_level(logging.WARNING):
        room.sync()
        room.sync()
    assert room.files() == {**ADD, "add/2/model": b"2"}
    assert caplog.text.count("leads out of its folder") == 1
    assert not [*room.cache.folder.rglob("x")]


# -- a start without the source ----------------------------------------------------------------


def test_a_server_can_start_with_what_the_last_one_had(tmp_path: Path) -> None:
    source = ScriptedSource(dict(ADD))
    first = Room(source, tmp_path)
    first.sync()
    first.close()
    second = Room(source, tmp_path)
    assert second.mirror.restore()
    assert second.files() == ADD
    second.close()


def test_a_name_that_cannot_be_a_file_keeps_nothing_from_being_remembered(tmp_path: Path) -> None:
    source = ScriptedSource({**ADD, "evil/../x": b""})
    first = Room(source, tmp_path)
    first.sync()
    first.close()
    second = Room(source, tmp_path)
    assert second.mirror.restore()
    assert second.files() == ADD
    second.close()


def test_a_server_does_not_start_with_half_of_it(tmp_path: Path) -> None:
    source = ScriptedSource(dict(ADD))
    first = Room(source, tmp_path)
    first.sync()
    first.close()
    next(tmp_path.glob("blobs/*/*")).unlink()
    second = Room(source, tmp_path)
    assert not second.mirror.restore()
    assert second.files() == {}
    second.close()


def test_a_source_that_is_empty_at_a_start_has_what_it_had(tmp_path: Path) -> None:
    source = ScriptedSource(dict(ADD))
    first = Room(source, tmp_path)
    first.sync()
    first.close()
    source.files.clear()
    second = Room(source, tmp_path)
    with pytest.raises(Doubtful, match=r"holds no files any more.*empty --remote-cache"):
        second.sync()
    assert second.mirror.restore()
    assert second.files() == ADD
    second.close()


def test_a_source_that_never_held_anything_may_be_empty(tmp_path: Path) -> None:
    room = Room(ScriptedSource({}), tmp_path)
    room.sync()
    assert room.files() == {}
    room.close()


# -- some of it --------------------------------------------------------------------------------


SEVERAL = {
    "add/1/model.onnx": b"a",
    "add/config.pbtxt": b"c",
    "other/1/model.onnx": b"o",
    "lone.onnx": b"l",
    "lone.onnx_data": b"d",
    "parts-00001-of-00002.gguf": b"1",
    "parts-00002-of-00002.gguf": b"2",
}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("add", {"add/1/model.onnx", "add/config.pbtxt"}),
        ("lone", {"lone.onnx", "lone.onnx_data"}),
        ("parts", {"parts-00001-of-00002.gguf", "parts-00002-of-00002.gguf"}),
        ("none", set()),
    ],
)
def test_only_what_is_wanted_is_fetched(tmp_path: Path, name: str, files: set[str]) -> None:
    source, chosen = ScriptedSource(dict(SEVERAL)), Chosen(())
    room = Room(source, tmp_path, chosen=chosen)
    room.sync()
    assert source.fetched == []
    assert room.mirror.unfetched == {path.partition("/")[0] for path in SEVERAL}
    chosen.add([name])
    room.sync()
    assert room.files().keys() == files
    assert {path for path, _ in source.fetched} == files
    chosen.discard([name])
    room.sync()
    assert room.files() == {}
    room.close()


def test_a_repository_that_is_one_model_is_wanted_by_its_name(tmp_path: Path) -> None:
    source, chosen = ScriptedSource({"config.json": b"{}"}, address="test://org/tiny"), Chosen(())
    room = Room(source, tmp_path, chosen=chosen)
    room.sync()
    assert room.files() == {}
    chosen.add(["tiny"])
    room.sync()
    assert room.files() == source.files
    room.close()


def test_whoever_has_some_of_it_does_not_forget_the_rest_for_others(tmp_path: Path) -> None:
    source = ScriptedSource(dict(SEVERAL))
    for chosen in (None, Chosen(["add"])):
        room = Room(source, tmp_path, chosen=chosen)
        room.sync()
        room.close()
    again = Room(source, tmp_path)
    assert again.mirror.restore()
    assert again.files() == SEVERAL
    again.close()
