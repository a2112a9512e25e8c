"""Who uses which environment of the cache, and which go when they are too many."""

import fcntl
import logging
import os
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)
_MARK = ".used"
_BLOCK_BYTES = 512
"""Of `st_blocks`, whatever the disk's are."""


class Uses:
    """Marks of this server on environments: held until it ends, for a model that has used one may
    start again at any time. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Path, int] = {}

    def hold(self, folder: Path, key: str) -> None:
        """Nobody removes the environment from now on. Waits for whoever does so now. Raises
        OSError."""
        mark = folder / f"{key}{_MARK}"
        with self._lock:
            if mark in self._held:
                return
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(mark, flags, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
            except BaseException:
                os.close(fd)
                raise
            self._held[mark] = fd

    def close(self) -> None:
        """Its models are gone."""
        with self._lock:
            for fd in self._held.values():
                os.close(fd)
            self._held.clear()

    def note(self, folder: Path, key: str, place: Path) -> None:
        """It is used now, and lies there. Raises OSError."""
        mark = folder / f"{key}{_MARK}"
        if not mark.stat().st_size:
            mark.write_text(str(_num_bytes(place)))
        os.utime(mark)


@dataclass(frozen=True, slots=True)
class _Kept:
    """An environment in the cache."""

    mark: Path
    num_bytes: int
    used_ns: int


def make_room(folder: Path, max_bytes: int) -> None:
    """Removes what no server uses, unused for longest first, down to the cap."""
    kept = sorted(_all(folder), key=lambda each: each.used_ns)
    excess = sum(each.num_bytes for each in kept) - max_bytes
    for each in kept:
        if excess <= 0:
            return
        with suppress(OSError):  # another server makes room, too
            if _remove_unused(folder, each.mark):
                excess -= each.num_bytes


def _all(folder: Path) -> list[_Kept]:
    found = []
    for mark in folder.glob(f"*{_MARK}"):
        with suppress(OSError, ValueError):
            num_bytes = int(mark.read_text() or 0)
            if num_bytes:
                found.append(_Kept(mark, num_bytes, mark.stat().st_mtime_ns))
    return found


def _remove_unused(folder: Path, mark: Path) -> bool:
    """The mark stays, empty: whoever waits for it must not hold what nobody else sees."""
    key = mark.name.removesuffix(_MARK)
    fd = os.open(mark, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if not try_lock(fd):
            return False
        os.truncate(fd, 0)
        (folder / key).unlink(missing_ok=True)
        for place in folder.glob(f"{key}.*/"):
            shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(fd)
    log.info("the environment '%s' is removed, to keep to --environment-cache-size", key)
    return True


def _num_bytes(place: Path) -> int:
    """What it takes on the disk; at least 1."""
    total = 1
    for parent, _, names in os.walk(place):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(Path(parent) / name).st_blocks * _BLOCK_BYTES
    return total


def try_lock(fd: int) -> bool:
    """Alone, without waiting for anybody."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
