"""Environments are made once, appear at once, and half of one is never used."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from patience import fires_after, patience

from trivet.backends.api import Environment, LoadFailed, Making
from trivet.backends.environments.cache import EnvironmentCache


@dataclass
class Recipe:
    """Writes a file, and waits in between where a test holds it."""

    key: str = "k"
    model: str = "m"
    fails: BaseException | None = None
    begun: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)
    places: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def make(self, folder: Path, making: Making) -> None:
        self.places.append(folder)
        (folder / "half").write_text("")
        self.begun.set()
        assert self.gate.wait(patience())
        if self.fails is not None:
            raise self.fails
        (folder / "whole").write_text(f"{making.max_bytes}")

    def made(self, folder: Path) -> Environment:
        if not (folder / "whole").exists():
            raise LoadFailed("half of it")
        return Environment(folder, folder / "python")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a" / "cache"


@pytest.fixture
def cache(folder: Path) -> Iterator[EnvironmentCache]:
    made = EnvironmentCache(folder, 77)
    yield made
    made.close()


def make(cache: EnvironmentCache, recipe: Recipe) -> Environment:
    return cache.make(recipe, threading.Event())


def left(folder: Path) -> set[str]:
    """What lies there beside locks."""
    return {path.name for path in folder.iterdir() if path.suffix not in (".lock", ".used")}


def test_what_was_made_is_found_by_another_server(cache: EnvironmentCache, folder: Path) -> None:
    recipe = Recipe()
    assert cache.find(recipe) is None

    made = make(cache, recipe)

    assert made.folder == recipe.places[0]
    assert (made.folder / "whole").read_text() == "77"
    assert EnvironmentCache(folder).find(Recipe()) == made
    assert make(cache, Recipe()) == made
    assert left(folder) == {"k", made.folder.name}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_two_that_want_it_at_once_make_it_once(folder: Path) -> None:
    """Each through a cache of its own, as two servers have it."""
    recipes = [Recipe(), Recipe()]
    for recipe in recipes:
        recipe.gate.clear()
    with ThreadPoolExecutor() as threads:
        making = [threads.submit(make, EnvironmentCache(folder), recipe) for recipe in recipes]
        while not any(recipe.begun.is_set() for recipe in recipes):
            pass
        assert EnvironmentCache(folder).find(Recipe()) is None, "half of one is none"
        for recipe in recipes:
            recipe.gate.set()
        first, second = (each.result(patience()) for each in making)

    assert first == second
    assert sum(len(recipe.places) for recipe in recipes) == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (LoadFailed("swordfish"), "swordfish"),
        (OSError(errno.ENOSPC, "full"), "there is no space left in the folder of"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error .the folder of"),
    ],
)
def test_of_one_that_could_not_be_made_nothing_is_left(
    cache: EnvironmentCache, folder: Path, error: Exception, text: str
) -> None:
    with pytest.raises(LoadFailed, match=text) as raised:
        make(cache, Recipe(fails=error))

    assert str(folder) not in raised.value.message
    assert left(folder) == set()
    assert make(cache, Recipe()).folder.is_dir()


def test_what_a_server_that_was_killed_has_left_is_removed(
    cache: EnvironmentCache, folder: Path
) -> None:
    half = folder / "k.half"
    half.mkdir(parents=True)
    folder.chmod(0o700)
    (half / "file").write_text("")

    made = make(cache, Recipe())

    assert left(folder) == {"k", made.folder.name}


def test_who_waits_for_another_gives_up_when_nobody_waits_any_more(folder: Path) -> None:
    first, stop = Recipe(), threading.Event()
    first.gate.clear()
    with ThreadPoolExecutor() as threads:
        making = threads.submit(make, EnvironmentCache(folder), first)
        assert first.begun.wait(patience())
        second = threads.submit(EnvironmentCache(folder).make, Recipe(), stop)
        with pytest.raises(TimeoutError):
            second.result(fires_after(0.2))
        stop.set()
        with pytest.raises(LoadFailed, match="was closed while it was loading"):
            second.result(patience())
        first.gate.set()
        assert making.result(patience()).folder.is_dir()


def open_to_all(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)


def of_another(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder.mkdir(parents=True)
    os.chown(folder, 12345, -1)


@pytest.mark.parametrize("prepare", [open_to_all, of_another])
def test_a_folder_that_others_write_into_is_not_used(
    cache: EnvironmentCache, folder: Path, prepare: Callable[[Path], None]
) -> None:
    prepare(folder)
    if os.geteuid() == 0 and prepare is of_another:
        # Root's own servers take root's and their own folders.
        assert folder.stat().st_uid == 12345

    with pytest.raises(LoadFailed, match="--environment-cache name a folder"):
        make(cache, Recipe())


def test_a_folder_that_cannot_be_made_is_told_by_its_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(LoadFailed, match="the folder of --environment-cache"):
        make(EnvironmentCache(tmp_path / "file" / "cache"), Recipe())


def test_a_link_to_what_somebody_has_removed_counts_as_none(
    cache: EnvironmentCache, folder: Path
) -> None:
    made = make(cache, Recipe())
    (made.folder / "whole").unlink()
    (made.folder / "half").unlink()
    made.folder.rmdir()

    assert cache.find(Recipe()) is None
    assert make(cache, Recipe()).folder.is_dir()


def test_a_user_without_a_home_is_told_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container; a server without such models does not notice."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 987654)
    cache = EnvironmentCache(Path("~/.cache"))

    with pytest.raises(LoadFailed, match="has no home; let --environment-cache name a folder"):
        make(cache, Recipe())


# -- the cap -----------------------------------------------------------------------------------


def made_before(folder: Path, *keys: str) -> None:
    """By a server that has ended."""
    cache = EnvironmentCache(folder)
    for key in keys:
        make(cache, Recipe(key))
    cache.close()


@pytest.fixture
def capped(folder: Path) -> Iterator[EnvironmentCache]:
    """Of another server, whose cap holds no two environments."""
    cache = EnvironmentCache(folder, 77, max_total_bytes=1)
    yield cache
    cache.close()


def test_what_no_server_uses_makes_room_unused_for_longest_first(folder: Path) -> None:
    made_before(folder, "old", "older", "new")
    os.utime(folder / "older.used", (1, 1))
    size = int((folder / "new.used").read_text())
    cache = EnvironmentCache(folder, 77, max_total_bytes=3 * size)

    last = make(cache, Recipe("last"))

    assert {name for name in left(folder) if "." not in name} == {"old", "new", "last"}
    assert not [*folder.glob("older.*/")]
    assert last.folder.is_dir()
    cache.close()


def test_what_a_server_uses_stays_however_small_the_cap(
    folder: Path, capped: EnvironmentCache
) -> None:
    made_before(folder, "found")
    user = EnvironmentCache(folder)
    made, found = make(user, Recipe("made")), user.find(Recipe("found"))

    make(capped, Recipe("last"))

    assert found is not None
    assert made.folder.is_dir()
    assert found.folder.is_dir()
    user.close()


def test_what_has_gone_to_make_room_is_made_again(folder: Path, capped: EnvironmentCache) -> None:
    made_before(folder, "k")
    make(capped, Recipe("other"))
    assert "k" not in left(folder)

    again = EnvironmentCache(folder)
    assert again.find(Recipe("k")) is None
    made = make(again, Recipe("k"))
    make(capped, Recipe("third"))

    assert made.folder.is_dir()
    again.close()
