"""Wheel and sdist hold what they should: the packages under trivet/, no tests, no weights."""

import importlib.metadata
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from house_rules import PACKAGES, ROOT

WEIGHTS = (".onnx", ".pt", ".pt2", ".safetensors", ".whl", "tokenizer.json")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPILED = {
    "trivet/backends/llm/native/_decoder.so",
    "trivet/server/shared_memory/native/_shm_guard.so",
    f"trivet/backends/api/native/_records{sysconfig.get_config_var('EXT_SUFFIX')}",
}
HAS_COMPILER = sys.platform == "linux" and platform.machine() == "x86_64" and shutil.which("cc")
NAME: str = f"trivet-{PROJECT['version']}"
BUILD = "import sys; from hatchling import build as b; getattr(b, sys.argv[1])(sys.argv[2])"


def build(kind: str, source: Path, target: Path) -> Path:
    """Has the project's build backend make a wheel or an sdist; returns the file."""
    subprocess.run([sys.executable, "-c", BUILD, f"build_{kind}", target], cwd=source, check=True)
    return next(target.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked_sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", ROOT, folder)) as archive:
        archive.extractall(folder, filter="data")
    return folder / NAME


def own_files() -> set[str]:
    """What of the checkout makes up the package, by its place in a wheel."""
    files = [path for path in (ROOT / "trivet").iterdir() if path.is_file()]
    files += [path for each in PACKAGES for path in (ROOT / each).rglob("*") if path.is_file()]
    kept = [path for path in files if path.suffix not in {".pyc", ".so"}]
    places = {path.relative_to(ROOT).as_posix() for path in kept}
    return {f"trivet/{place.removeprefix('trivet/')}" for place in places}


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    packed = {name for name in contents(wheel) if ".dist-info/" not in name}

    assert packed - COMPILED == own_files()
    for package in PACKAGES:
        assert f"trivet/{package}/__init__.py" in packed
    assert "trivet/py.typed" in packed


def test_wheel_without_a_compiler_is_for_every_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    bare = build("wheel", ROOT, tmp_path)
    assert bare.name == f"{NAME}-py3-none-any.whl"
    assert not COMPILED & contents(bare)


@pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler for the compiled parts")
def test_wheel_with_a_compiler_holds_what_it_compiles(wheel: Path) -> None:
    assert wheel.name == f"{NAME}-py3-none-linux_x86_64.whl"
    assert contents(wheel) >= COMPILED


def test_compiler_that_fails_does_not_stop_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "false")
    assert build("wheel", ROOT, tmp_path).name == f"{NAME}-py3-none-any.whl"


def test_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (package,) = importlib.metadata.distributions(path=[str(tmp_path)])
    (command,) = package.entry_points.select(group="console_scripts")
    module, function = command.value.split(":")
    start = f"import {module} as cli, sys; print(cli.__file__); sys.exit(cli.{function}())"

    told = subprocess.run(
        [sys.executable, "-c", start, "serve", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert command.name == "trivet"
    assert Path(told.stdout.splitlines()[0]).is_relative_to(tmp_path)
    assert "--http-port" in told.stdout


def test_sdist_holds_sources_tests_and_examples_without_weights(unpacked_sdist: Path) -> None:
    packed = {
        path.relative_to(unpacked_sdist).as_posix()
        for path in unpacked_sdist.rglob("*")
        if path.is_file()
    }

    assert own_files() <= packed
    assert {"pyproject.toml", "README.md", "PKG-INFO", "model_repository/build.py"} <= packed
    assert {"tests/conftest.py", "tests/serving.py"} <= packed
    assert [name for name in packed if name.endswith(WEIGHTS)] == []
    assert [name for name in packed if "__pycache__" in name or name.startswith(".venv")] == []


def test_sdist_builds_the_same_wheel(unpacked_sdist: Path, wheel: Path, tmp_path: Path) -> None:
    assert contents(build("wheel", unpacked_sdist, tmp_path)) == contents(wheel)
