"""Packages are installed by uv, or by pip where that is not there, and nothing else uses them."""

import threading
from pathlib import Path

import pytest
from made_environments import PYTHON, make_wheel
from patience import fires_after

from trivet.backends.api import LoadFailed
from trivet.backends.environments.cache import EnvironmentCache
from trivet.backends.environments.installing import InstallRecipe
from trivet.backends.environments.work import Work

UV = """#!/bin/sh
echo "$@" > {told}
echo "in $(pwd)"
{does}
"""


def recipe(text: str, limit_s: float = 600) -> InstallRecipe:
    return InstallRecipe(text, Work("m", "model 'm': its requirements.txt", limit_s))


@pytest.fixture
def cache(tmp_path: Path) -> EnvironmentCache:
    return EnvironmentCache(tmp_path / "cache")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What pip finds, and all that it finds."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tmp_path / "wheels"


def fake_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> Path:
    told, uv = tmp_path / "told", tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(UV.format(told=told, does=does))
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{uv.parent}:/usr/bin:/bin")
    return told


def test_uv_is_told_what_to_install_where(
    tmp_path: Path, cache: EnvironmentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = fake_uv(tmp_path, monkeypatch, "exit 0")

    made = cache.make(recipe("frob>=1\n"), threading.Event())

    place = made.folder.parent
    assert told.read_text().split() == [
        *("pip", "install", "--python", str(place / "env" / "bin" / "python")),
        *("--color", "never", "--no-progress", "--requirement", str(place / "requirements.txt")),
    ]
    assert (place / "requirements.txt").read_text() == "frob>=1\n"
    assert made.python.resolve() == PYTHON.resolve()
    assert cache.find(recipe("frob>=1\n")) == made
    assert cache.find(recipe("frob>=2\n")) is None


@pytest.mark.parametrize(
    ("does", "text"),
    [
        ("echo No frob at https://swordfish/x; exit 1", r"install failed; .*No frob at \(URL\)"),
        ("echo No space left on device >&2; exit 2", r"install failed; .*No space left on device"),
        ("kill -9 $$", "install failed"),
    ],
)
def test_a_failure_is_told_with_its_last_lines_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: EnvironmentCache, does: str, text: str
) -> None:
    fake_uv(tmp_path, monkeypatch, does)

    with pytest.raises(LoadFailed, match=f"(?s)model 'm': its requirements.txt: {text}") as raised:
        cache.make(recipe("frob\n"), threading.Event())

    assert str(tmp_path) not in raised.value.message
    assert "swordfish" not in raised.value.message
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".lock"}


def test_one_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: EnvironmentCache
) -> None:
    fake_uv(tmp_path, monkeypatch, "exec sleep 600")

    with pytest.raises(LoadFailed, match=r"took longer than 1.5 s .*install_timeout_s"):
        cache.make(recipe("frob\n", fires_after(1.5)), threading.Event())


def test_without_uv_pip_installs_and_the_server_has_nothing_of_it(
    wheels: Path, cache: EnvironmentCache
) -> None:
    make_wheel(wheels, "frob", "1.0", "WHO = 1", requires="knob>=2")
    make_wheel(wheels, "knob", "2.0", "")

    made = cache.make(recipe("frob==1.0\n"), threading.Event())

    installed = {path.name for path in made.folder.glob("lib/python*/site-packages/*")}
    assert {"frob", "knob"} <= installed
    assert "numpy" not in installed


def test_what_pip_cannot_find_is_told_in_its_words(wheels: Path, cache: EnvironmentCache) -> None:
    wheels.mkdir()

    with pytest.raises(LoadFailed, match="No matching distribution found for frob==7"):
        cache.make(recipe("frob==7\n"), threading.Event())


def test_with_neither_the_text_says_what_to_install(
    wheels: Path, cache: EnvironmentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trivet.backends.environments.installing.find_spec", lambda name: None)

    with pytest.raises(LoadFailed, match=r"neither uv nor pip .* pip install uv"):
        cache.make(recipe("frob\n"), threading.Event())
