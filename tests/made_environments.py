"""Makers of environments and packages, without a network and in milliseconds."""

import io
import sys
import tarfile
import zipfile
from pathlib import Path

VERSION = ".".join(map(str, sys.version_info[:2]))
BASE = Path(sys.base_prefix) / "bin"
PYTHON = BASE / f"python{VERSION}"
Member = tuple[tarfile.TarInfo, bytes]
"""Of an archive."""


def site_packages(environment: Path, version: str = VERSION) -> Path:
    folder = environment / "lib" / f"python{version}" / "site-packages"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def add_package(environment: Path, name: str, source: str, version: str = VERSION) -> None:
    """`name` may have dots."""
    folder = site_packages(environment, version).joinpath(*name.split("."))
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(source)


def make_venv(folder: Path, version: str = VERSION, home: Path = BASE) -> Path:
    """As `python -m venv --without-pip` makes it."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / f"python{version}").symlink_to(home / f"python{version}")
    (folder / "bin" / "python").symlink_to(f"python{version}")
    (folder / "bin" / "python3").symlink_to(f"python{version}")
    site_packages(folder, version)
    (folder / "lib64").symlink_to("lib")
    (folder / "pyvenv.cfg").write_text(
        f"home = {home}\ninclude-system-site-packages = false\nversion = {version}.0\n"
    )
    return folder


def make_conda(folder: Path, version: str = VERSION) -> Path:
    """As conda-pack packs it: with an interpreter of its own, which is a script here that runs the
    tests', and a program that mends paths."""
    (folder / "bin").mkdir(parents=True)
    (folder / "conda-meta").mkdir()
    library = site_packages(folder, version)
    (folder / "lib" / "python3.1").symlink_to(f"python{version}")
    python = folder / "bin" / "python"
    python.write_text(
        f'#!/bin/sh\nhere=$(dirname "$0")/..\n'
        f'PYTHONPATH="$here/lib/{library.parent.name}/site-packages" exec {PYTHON} "$@"\n'
    )
    python.chmod(0o755)
    (folder / "bin" / "conda-unpack").write_text(
        "import pathlib, sys\n"
        "here = pathlib.Path(__file__).parents[1]\n"
        "(here / 'prefix').write_text(str(here))\n"
    )
    return folder


def pack(folder: Path, archive: Path, top: str = "") -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as members:
        members.add(folder, top or ".")
    return archive


def member(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", content: bytes = b""
) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    return info, content


def archive_of(path: Path, *members: Member) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def make_wheel(folder: Path, name: str, version: str, source: str, requires: str = "") -> Path:
    """A package that pip finds with `--find-links` of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    if requires:
        lines.append(f"Requires-Dist: {requires}")
    files = {
        f"{name}/__init__.py": source,
        f"{info}/METADATA": "\n".join((*lines, "")),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in (*files.items(), (f"{info}/RECORD", record)):
            archive.writestr(path, text)
    return wheel
