"""Unpacks an archive with an environment into a folder, and nothing of it anywhere else.

Run as a file, in a process of its own: unpacking a gigabyte in Python would hold up the server's
other threads, and what an archive's heads claim may cost memory. What tarfile itself guards against
depends on the Python; the rules here do not.

- Names have no `..` and are not absolute. Nothing is written through a link.
- Links lead nowhere but into the folder. The interpreter of a virtual environment, which always
  leads out, is left out; see `Layout.settle`.
- Files, folders and links only; at most so many of them, so deep, and so many bytes.
"""

import errno
import os
import posixpath
import resource
import sys
import tarfile
import zlib
from contextlib import suppress
from lzma import LZMAError
from pathlib import Path
from typing import NoReturn

REFUSED = 65
"""Exit code: the archive is at fault, and the last line says why."""
FAILED = 74
"""Exit code: the system is, and the last line is its error number."""
MAX_MEMBERS = 1_000_000
MAX_DEPTH = 200
"""Of folders in each other: what removes them goes down step by step."""
_MAX_MEMORY_BYTES = 4 << 30
_CHUNK_BYTES = 1 << 20
_INTERPRETER = "bin/python"


class BadArchive(Exception):
    """It is not unpacked; the text says why."""


def main() -> None:
    """Arguments: the archive, the folder, how many bytes there may be."""
    archive, folder, max_bytes = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    try:
        Unpacker(Path(folder), int(max_bytes)).unpack(Path(archive))
    except BadArchive as error:
        _end(str(error), REFUSED)
    except MemoryError:
        _end("its heads take too much memory", REFUSED)
    except OSError as error:
        _end(str(error.errno or errno.EIO), FAILED)


def _end(line: str, code: int) -> NoReturn:
    sys.stderr.write(f"{line}\n")
    sys.exit(code)


class Unpacker:
    """Of one archive."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """`folder`: is there and empty."""
        self._folder = folder
        self._max_bytes = self._left_bytes = max_bytes
        self._num_members = 0
        self._links: set[str] = set()

    def unpack(self, archive: Path) -> None:
        """Raises BadArchive, OSError."""
        try:
            with tarfile.open(archive, "r|*", errorlevel=2) as members:
                for member in members:
                    self._num_members += 1
                    if self._num_members > MAX_MEMBERS:
                        raise BadArchive(f"it holds more than {MAX_MEMBERS} files")
                    self._take_named(members, member)
        except tarfile.ReadError as error:
            is_none = self._num_members == 0
            why = "it is no tar archive" if is_none else f"it is damaged: {error}"
            raise BadArchive(why) from error
        except (tarfile.TarError, EOFError, LZMAError, zlib.error, ValueError) as error:
            raise BadArchive(f"it is damaged: {error}") from error
        if self._num_members == 0:
            raise BadArchive("it is an empty archive")

    def _take_named(self, members: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        try:
            self._take(members, member)
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise BadArchive(f"{member.name!r} is in it as a file and as a folder") from error
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise BadArchive(f"{member.name[:64]!r}... is too long a name") from error

    def _take(self, members: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = self._name(member.name)
        if name == ".":
            return
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if member.isdir():
            path.mkdir(exist_ok=True)
            return
        if path.is_symlink() or path.is_file():
            # Given twice: the last one counts, as it does for tar.
            path.unlink()
            self._links.discard(name)
        if member.issym():
            self._link(name, member.linkname)
        elif member.islnk():
            self._link_hard(name, member.linkname)
        elif member.isreg():
            self._write(members, member, path)
        else:
            raise BadArchive(f"{name!r} is no file, folder or link")

    def _name(self, given: str) -> str:
        """Where it lies in the folder."""
        name = posixpath.normpath(given)
        parts = name.split("/")
        if given.startswith("/") or ".." in parts or "\0" in given:
            raise BadArchive(f"{given!r} leads out of it")
        if len(parts) > MAX_DEPTH:
            raise BadArchive(f"{given[:64]!r}... lies more than {MAX_DEPTH} folders deep")
        for count in range(1, len(parts)):
            if "/".join(parts[:count]) in self._links:
                raise BadArchive(f"{given!r} lies behind a link")
        return name

    def _link(self, name: str, target: str) -> None:
        folder = posixpath.dirname(name)
        # All `..` come first then, and are of folders that are none of ours.
        relative = posixpath.normpath(target) if target else "."
        place = posixpath.normpath(posixpath.join(folder, relative))
        if target.startswith("/") or place.split("/")[0] == ".." or "\0" in target:
            if _is_interpreter(name):
                return
            raise BadArchive(f"{name!r} is a link that leads out of it")
        (self._folder / name).symlink_to(relative)
        self._links.add(name)

    def _link_hard(self, name: str, target: str) -> None:
        """To a file that has been unpacked before."""
        source = self._folder / self._name(target)
        if source.is_symlink() or not source.is_file():
            raise BadArchive(f"{name!r} is a link to {target!r}, which is no file before it")
        (self._folder / name).hardlink_to(source)

    def _write(self, members: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        self._left_bytes -= member.size
        if self._left_bytes < 0:
            raise BadArchive(
                f"it holds more than {self._max_bytes} bytes, the limit of --max-environment-size"
            )
        content = members.extractfile(member)
        assert content is not None, "a regular file has content"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        # What the owner may, and no more: no set-uid bits.
        with open(os.open(path, flags, 0o600 | member.mode & 0o755), "wb") as file:  # noqa: PTH123
            while chunk := content.read(_CHUNK_BYTES):
                file.write(chunk)
            file.flush()
            # Byte code knows by its source's time that it is of that source.
            with suppress(ValueError, OverflowError):
                os.utime(file.fileno(), (member.mtime, member.mtime))


def _is_interpreter(name: str) -> bool:
    """`bin/python`, `bin/python3`, `bin/python3.11`, at the top or in the only folder there."""
    parts = name.split("/")
    return len(parts) in (2, 3) and "/".join(parts[-2:]).startswith(_INTERPRETER)


if __name__ == "__main__":
    main()
