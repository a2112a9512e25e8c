"""Files from elsewhere on this disk, by source and stamp, with a cap on what nobody uses.

    blobs/ab/abcd...      whole files, read-only; trees hold hard links to them
    parts/abcd...         what has been fetched so far; goes on from there, also after a restart
    parts/abcd....whole   what a client library has put down beside it, to be read from there
    used/abcd...          an empty file, touched when the blob is taken: who was used last

Several servers may share the folder. A part belongs to whoever holds its lock. A blob with a second
link is in a tree of some server, so nobody has to keep a register of what serves.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

from trivet.server.remote.progress import Advance
from trivet.server.remote.source import Addressed, Changed, Source, Stamp, Unreachable

LOCK_POLL_S = 0.2
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES)
"""Why a file system has no second name for a file."""


class Stopped(Exception):
    """The server ends."""


class Cache:
    """One folder of blobs. Used from any thread."""

    def __init__(self, folder: Path, max_bytes: int, stop: Event) -> None:
        """`stop`: breaks off what is being fetched. Raises OSError."""
        self.folder = folder
        self._max_bytes = max_bytes
        self._stop = stop
        # What lies here is loaded as models: nobody else may put anything in.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("blobs", "parts", "sources", "trees", "used"):
            below = folder / name
            below.mkdir(mode=0o700, exist_ok=True)
            status = below.lstat()
            if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
                raise PermissionError(errno.EPERM, "what lies in it is another user's", str(folder))

    def has(self, source: Addressed, stamp: Stamp) -> bool:
        """Whether the file is here, whole."""
        return _size_of(self._blob(_key(source, stamp))) == stamp.size

    def num_bytes_missing(self, source: Addressed, stamp: Stamp) -> int:
        """How much of the file has yet to come."""
        if self.has(source, stamp):
            return 0
        return stamp.size - min(stamp.size, _size_of(self._part(_key(source, stamp))) or 0)

    def fetch(self, source: Source, path: str, stamp: Stamp, progress: Advance) -> None:
        """Makes the file be here. Raises Changed, Unreachable, RemoteError, OSError or Stopped;
        what has come stays for the next try."""
        key = _key(source, stamp)
        with self._locked_part(key, stamp) as part:
            if part is None:
                return
            at = _size_of(part) or 0
            if at > stamp.size:
                os.truncate(part, 0)
                at = 0
            if at < stamp.size:
                for num_bytes in source.fetch(path, stamp, part, at):
                    progress(num_bytes)
                    if self._stop.is_set():
                        raise Stopped
            _verify(source, path, stamp, part)
            _write_through(part)
            blob = self._blob(key)
            blob.parent.mkdir(mode=0o700, exist_ok=True)
            part.replace(blob)
            # A model that writes to its file would change every tree's.
            blob.chmod(0o444)

    def link(self, source: Addressed, stamp: Stamp, into: Path) -> None:
        """Gives the file a second name. Raises FileNotFoundError where it is not here, whole:
        another server may have made room."""
        key = _key(source, stamp)
        blob = self._blob(key)
        if _size_of(blob) != stamp.size:
            blob.unlink(missing_ok=True)
            raise FileNotFoundError(blob)
        self._note_use(key)
        try:
            os.link(blob, into)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copy2(blob, into)

    def last_use_ns(self, source: Addressed, stamp: Stamp) -> int:
        """When the file was last taken, since 1970; 0 if never."""
        return _last_use(self.folder / "used" / _key(source, stamp))

    def remove(self, source: Addressed, stamp: Stamp) -> None:
        """Removes the file, and what has been fetched of it so far unless somebody fetches it now.
        Who serves it has a second name for it."""
        key = _key(source, stamp)
        blob, part = self._blob(key), self._part(key)
        blob.unlink(missing_ok=True)
        _remove_unlocked(part, part)
        (self.folder / "used" / key).unlink(missing_ok=True)

    def trim(self) -> None:
        """Removes what is in no tree, longest unused first, down to the cap."""
        found: list[tuple[int, Path, os.stat_result]] = []
        for file in [*self.folder.glob("blobs/*/*"), *self.folder.glob("parts/*")]:
            # Parts become blobs meanwhile, and other servers make room, too.
            with suppress(FileNotFoundError):
                found.append((_last_use(self.folder / "used" / file.name), file, file.stat()))
        excess = sum(status.st_size for _, _, status in found) - self._max_bytes
        for _, file, status in sorted(found, key=lambda each: each[0]):
            if excess <= 0:
                return
            if status.st_nlink == 1 and _remove_unlocked(file, file.with_suffix("")):
                (self.folder / "used" / file.name).unlink(missing_ok=True)
                excess -= status.st_size

    def num_bytes_free(self) -> int:
        """What the disk has left."""
        return shutil.disk_usage(self.folder).free

    def _blob(self, key: str) -> Path:
        return self.folder / "blobs" / key[:2] / key

    def _part(self, key: str) -> Path:
        return self.folder / "parts" / key

    def _note_use(self, key: str) -> None:
        (self.folder / "used" / key).touch(mode=0o600)

    @contextmanager
    def _locked_part(self, key: str, stamp: Stamp) -> Iterator[Path | None]:
        """The part, locked; None when the whole is here, which somebody else may have fetched
        meanwhile."""
        part = self._part(key)
        while True:
            if _size_of(self._blob(key)) == stamp.size:
                yield None
                return
            descriptor = os.open(part, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if not _try_lock(descriptor):
                    if self._stop.wait(LOCK_POLL_S):
                        raise Stopped
                    continue
                if not _is_file_of(descriptor, part):
                    continue
                self._note_use(key)
                yield part
                return
            finally:
                os.close(descriptor)


def _key(source: Addressed, stamp: Stamp) -> str:
    named = "\0".join((source.address, stamp.tag, str(stamp.size)))
    return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()


def _size_of(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None


def _last_use(mark: Path) -> int:
    try:
        return mark.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_file_of(descriptor: int, path: Path) -> bool:
    """Whether what is open still has the name: whoever had the lock before may have renamed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _remove_unlocked(file: Path, locked: Path) -> bool:
    """Removes a blob, or a part that nobody is fetching. `locked`: what is then locked, if there:
    the file itself, or the part that it lies beside."""
    with suppress(FileNotFoundError):
        descriptor = os.open(locked, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not _try_lock(descriptor):
                return False
            file.unlink()
        finally:
            os.close(descriptor)
    file.unlink(missing_ok=True)
    return True


def _verify(source: Source, path: str, stamp: Stamp, part: Path) -> None:
    size = _size_of(part)
    if size is not None and size < stamp.size:
        raise Unreachable(
            f"{source.address}: '{path}' ended after {size:,} of {stamp.size:,} bytes"
        )
    if size != stamp.size:
        part.unlink()
        raise Changed
    if not stamp.sha256:
        return
    with part.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != stamp.sha256:
        part.unlink()
        raise Unreachable(
            f"{source.address}: what came of '{path}' is not what the source says it is (SHA-256 "
            f"{found[:12]}... instead of {stamp.sha256[:12]}...); it is not used"
        )


def _write_through(part: Path) -> None:
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
