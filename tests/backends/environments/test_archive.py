"""Archives that are unpacked for a model: what becomes of them, and of those that change."""

import shutil
import threading
from pathlib import Path

import pytest
from made_environments import archive_of, make_conda, make_venv, member, pack

from trivet.backends.api import LoadFailed, UnreadableFiles, judged
from trivet.backends.environments import unpack
from trivet.backends.environments.archive import ArchiveRecipe
from trivet.backends.environments.cache import EnvironmentCache
from trivet.backends.environments.work import Work
from trivet.backends.process.chore import Ended


def recipe(path: Path) -> ArchiveRecipe:
    return ArchiveRecipe.of(path, Work("m", "model 'm': 'env.tar.gz'"))


@pytest.fixture
def cache(tmp_path: Path) -> EnvironmentCache:
    return EnvironmentCache(tmp_path / "cache", max_bytes=1 << 20)


@pytest.mark.parametrize("top", ["", "env"])
def test_conda_s_archive_has_its_paths_mended_where_it_stays(
    tmp_path: Path, cache: EnvironmentCache, top: str
) -> None:
    archive = pack(make_conda(tmp_path / "made"), tmp_path / "env.tar.gz", top)

    made = cache.make(recipe(archive), threading.Event())

    assert (made.folder / "prefix").read_text() == str(made.folder)
    assert made.has_libraries


def test_one_that_mends_no_paths_is_refused_with_its_last_words(
    tmp_path: Path, cache: EnvironmentCache
) -> None:
    environment = make_conda(tmp_path / "made")
    (environment / "bin" / "conda-unpack").write_text("raise SystemExit('no prefix')")
    archive = pack(environment, tmp_path / "env.tar.gz")

    with pytest.raises(LoadFailed, match=r"(?s)'env.tar.gz': conda-unpack failed; .*no prefix"):
        cache.make(recipe(archive), threading.Event())
    assert cache.find(recipe(archive)) is None


@pytest.mark.parametrize(
    ("size", "text"), [(2 << 20, "holds more than 1048576 bytes"), (10, "holds no environment")]
)
def test_others_are_refused_with_what_they_are(
    tmp_path: Path, cache: EnvironmentCache, size: int, text: str
) -> None:
    archive = archive_of(tmp_path / "env.tar.gz", member("a/b", content=bytes(size)))

    with pytest.raises(LoadFailed, match=text):
        cache.make(recipe(archive), threading.Event())


def test_one_of_which_somebody_has_removed_some_is_unpacked_again(
    tmp_path: Path, cache: EnvironmentCache
) -> None:
    archive = pack(make_venv(tmp_path / "made"), tmp_path / "env.tar.gz")
    made = cache.make(recipe(archive), threading.Event())
    shutil.rmtree(made.folder / "bin")

    assert cache.find(recipe(archive)) is None
    assert cache.make(recipe(archive), threading.Event()).python.is_file()
    assert not made.folder.exists()


def test_one_that_was_replaced_meanwhile_is_not_kept_as_the_other(
    tmp_path: Path, cache: EnvironmentCache
) -> None:
    archive = pack(make_venv(tmp_path / "made"), tmp_path / "env.tar.gz")
    before = recipe(archive)
    pack(make_conda(tmp_path / "another"), archive)

    with pytest.raises(LoadFailed, match="was changed while it was unpacked"):
        cache.make(before, threading.Event())
    assert cache.find(before) is None


def test_a_disk_that_is_full_is_no_fault_of_the_archive(
    tmp_path: Path, cache: EnvironmentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again, as other faults of the disk are."""
    archive = pack(make_venv(tmp_path / "made"), tmp_path / "env.tar.gz")
    full = Ended(unpack.FAILED, is_stopped=False, is_late=False, lines=("28",))
    monkeypatch.setattr(Work, "run", lambda *_: full)

    with pytest.raises(LoadFailed, match="there is no space left in the folder of") as raised:
        cache.make(recipe(archive), threading.Event())

    assert isinstance(judged(raised.value), UnreadableFiles)
