"""Files from elsewhere: fetched once, kept within a cap, shared by servers."""

import threading
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from mirror_room import Room, size_of
from patience import patience
from scripted_source import Fault, ScriptedSource, broken

from trivet.server.remote.cache import Cache, Stopped
from trivet.server.remote.source import Unreachable
from trivet.server.remote.tree import Tree, remove_abandoned


def ignore(_: int) -> None:
    """Nobody looks at the progress."""


@pytest.fixture
def source() -> ScriptedSource:
    return ScriptedSource({"m/1/weights": bytes(100)})


def open_cache(folder: Path, max_bytes: int = 1 << 30) -> Cache:
    return Cache(folder, max_bytes, Event())


def test_a_server_that_starts_anew_goes_on_where_the_last_one_ended(
    source: ScriptedSource, tmp_path: Path
) -> None:
    stamp = source.stamp("m/1/weights")
    source.fetch_faults = [broken(after=60)]
    with pytest.raises(Unreachable):
        open_cache(tmp_path).fetch(source, "m/1/weights", stamp, ignore)
    again = open_cache(tmp_path)
    assert again.num_bytes_missing(source, stamp) == 40
    again.fetch(source, "m/1/weights", stamp, ignore)
    assert [at for _, at in source.fetched] == [0, 60]
    assert again.has(source, stamp)


def test_what_ends_early_is_not_taken_for_whole(source: ScriptedSource, tmp_path: Path) -> None:
    stamp = source.stamp("m/1/weights")
    source.fetch_faults = [Fault(content=b"short")]
    cache = open_cache(tmp_path)
    with pytest.raises(Unreachable, match="ended after 5 of 100 bytes"):
        cache.fetch(source, "m/1/weights", stamp, ignore)
    assert not cache.has(source, stamp)


def test_two_paths_with_one_content_are_one_file(tmp_path: Path) -> None:
    source = ScriptedSource({"a/1/m": b"same", "b/1/m": b"same"})
    room = Room(source, tmp_path)
    room.sync()
    assert size_of(tmp_path) == 4
    room.close()


def test_two_servers_fetch_a_file_once(source: ScriptedSource, tmp_path: Path) -> None:
    stamp = source.stamp("m/1/weights")
    begun, go_on = Event(), Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(patience())

    source.fetch_faults = [Fault(before=hold)]
    threads = [
        threading.Thread(
            target=open_cache(tmp_path).fetch, args=(source, "m/1/weights", stamp, ignore)
        )
        for _ in range(2)
    ]
    threads[0].start()
    assert begun.wait(patience())
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(patience())
    assert source.fetched == [("m/1/weights", 0)]


def test_a_server_that_ends_waits_for_no_other(source: ScriptedSource, tmp_path: Path) -> None:
    stop = Event()
    cache = Cache(tmp_path, 1 << 30, stop)
    source.fetch_faults = [Fault(before=stop.set)]
    with pytest.raises(Stopped):
        cache.fetch(source, "m/1/weights", source.stamp("m/1/weights"), ignore)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Room]:
    """A cache with a cap of 250 bytes and three files of 100, of which the second is in a tree."""
    source = ScriptedSource({f"{name}/1/m": name.encode() * 100 for name in "abc"})
    room = Room(source, tmp_path, max_bytes=250)
    for name in "abc":
        path = f"{name}/1/m"
        room.cache.fetch(source, path, source.stamp(path), ignore)
    source.files = {"b/1/m": source.files["b/1/m"]}
    room.sync()
    yield room
    room.close()


def test_what_was_unused_for_longest_goes_first(full: Room) -> None:
    assert size_of(full.cache.folder) == 200
    kept = {file.read_bytes()[:1] for file in full.cache.folder.glob("blobs/*/*")}
    assert kept == {b"b", b"c"}


def test_what_is_in_a_tree_stays_however_small_the_cap(full: Room) -> None:
    Cache(full.cache.folder, 0, Event()).trim()
    assert full.files() == full.source.files
    assert size_of(full.cache.folder) == 100


def test_what_vanishes_while_room_is_made_is_nothing(full: Room) -> None:
    (full.cache.folder / "parts/gone").symlink_to("renamed-meanwhile")
    Cache(full.cache.folder, 0, Event()).trim()
    assert len([*full.cache.folder.glob("blobs/*/*")]) == 1
    assert full.files() == full.source.files


@pytest.mark.parametrize("name", ["blobs", "parts", "sources", "trees", "used"])
def test_a_folder_that_is_a_link_to_another_is_not_used(tmp_path: Path, name: str) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / name).symlink_to("documents")
    with pytest.raises(PermissionError):
        open_cache(tmp_path)


def test_what_another_server_is_fetching_stays(source: ScriptedSource, tmp_path: Path) -> None:
    stamp = source.stamp("m/1/weights")
    other = open_cache(tmp_path, max_bytes=0)
    source.fetch_faults = [Fault(before=other.trim)]
    cache = open_cache(tmp_path)
    cache.fetch(source, "m/1/weights", stamp, ignore)
    assert cache.has(source, stamp)
    other.trim()
    assert size_of(tmp_path) == 0


def test_what_a_client_library_has_put_down_stays_as_long_as_its_file_is_fetched(
    source: ScriptedSource, tmp_path: Path
) -> None:
    stamp, other = source.stamp("m/1/weights"), open_cache(tmp_path, max_bytes=0)
    seen: list[bool] = []

    def put_down() -> None:
        (part,) = tmp_path.glob("parts/*")
        whole = part.with_name(f"{part.name}.whole")
        whole.write_bytes(b"all of it")
        other.trim()
        seen.append(whole.exists())

    source.fetch_faults = [Fault(before=put_down)]
    open_cache(tmp_path).fetch(source, "m/1/weights", stamp, ignore)
    assert seen == [True]
    other.trim()
    assert size_of(tmp_path) == 0


def test_what_is_trimmed_between_fetch_and_switch_is_fetched_again(
    source: ScriptedSource, tmp_path: Path
) -> None:
    room = Room(source, tmp_path)
    other = open_cache(tmp_path, max_bytes=0)
    # The second listing is asked for when all has come.
    source.listing_faults = [lambda: None, other.trim]
    room.sync()
    assert room.files() == source.files
    assert len(source.fetched) == 2
    room.close()


def test_a_file_that_was_cut_in_the_cache_is_fetched_again(
    source: ScriptedSource, tmp_path: Path
) -> None:
    first = Room(source, tmp_path)
    first.sync()
    first.close()
    blob = next(tmp_path.glob("blobs/*/*"))
    blob.chmod(0o600)
    blob.write_bytes(b"cut")
    second = Room(source, tmp_path)
    second.sync()
    assert second.files() == source.files
    second.close()


def test_trees_of_servers_that_are_gone_are_removed(source: ScriptedSource, tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    living = Tree(source, cache)
    dead = tmp_path / "trees" / "dead"
    dead.mkdir()
    (dead / "lock").touch()
    remove_abandoned(cache)
    assert [path.parent for path in tmp_path.glob("trees/*/lock")] == [living.root.parent]
    living.close()


def test_files_that_models_might_write_to_are_read_only(
    source: ScriptedSource, tmp_path: Path
) -> None:
    room = Room(source, tmp_path)
    room.sync()
    assert (room.tree.root / "m/1/weights").stat().st_mode & 0o222 == 0
    assert tmp_path.joinpath("blobs").stat().st_mode & 0o077 == 0
    room.close()
