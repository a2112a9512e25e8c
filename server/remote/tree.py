"""A repository from elsewhere as an ordinary folder here, of hard links to the cache's files.

    trees/ab12.../lock            held while the server that has made the tree runs
    trees/ab12.../models/         the repository: its name is the address's last part
    trees/ab12.../staged/         pieces that are made before they are put in place

A piece is made whole beside the repository and then put in its place by one rename, so whoever
looks finds the old one or the new one. What has not changed is not touched.
"""

import ctypes
import fcntl
import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

from trivet.server.remote.cache import Cache
from trivet.server.remote.pieces import ROOT, Piece, Pieces, are_nested, model_of
from trivet.server.remote.source import Addressed

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
"""Of Linux's renameat2."""


class Tree:
    """One repository on this disk. Owned by the thread that follows its source."""

    def __init__(self, source: Addressed, cache: Cache) -> None:
        """Raises OSError."""
        self._source = source
        self._cache = cache
        self._folder = Path(mkdtemp(dir=cache.folder / "trees"))
        self._lock = _locked(self._folder / "lock")
        self.root = self._folder / _name_of(source.address)
        self.root.mkdir()
        self._staged = self._folder / "staged"
        self.pieces: Pieces = {}
        """What lies in it."""

    def switch(self, wanted: Pieces) -> None:
        """Makes `wanted` be what lies in it. All files must be in the cache: raises
        FileNotFoundError where one is not, and nothing but whole pieces has changed then."""
        changed = {place for place, piece in wanted.items() if self.pieces.get(place) != piece}
        gone = self.pieces.keys() - wanted.keys()
        # A model that gets version folders, or a file that becomes a folder.
        in_the_way = {old for old in gone if any(are_nested(old, new) for new in changed)}
        self._remove(in_the_way)
        # A config before the versions that it is for: whoever looks between finds no version yet.
        for place in sorted(changed, key=lambda place: (not wanted[place].is_file, place)):
            self._put(place, wanted[place])
        self._remove(gone - in_the_way)

    def close(self) -> None:
        """Removes it from the disk."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def _put(self, place: str, piece: Piece) -> None:
        self._clear_staged()
        for below, stamp in piece.files.items():
            into = self._staged / below if below else self._staged
            into.parent.mkdir(parents=True, exist_ok=True)
            self._cache.link(self._source, stamp, into)
        target = self.root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() or (target.exists() and self._staged.is_dir()):
            _exchange(self._staged, target)
            self._clear_staged()
        else:
            self._staged.replace(target)
        self.pieces = {**self.pieces, place: piece}

    def _clear_staged(self) -> None:
        if self._staged.is_dir():
            shutil.rmtree(self._staged, ignore_errors=True)
        else:
            self._staged.unlink(missing_ok=True)

    def _remove(self, places: Iterable[str]) -> None:
        for place in sorted(places):
            self._clear_staged()
            with suppress(FileNotFoundError):  # a model's own code may have removed it
                (self.root / place).rename(self._staged)
            self.root.mkdir(exist_ok=True)  # it may have been the whole
            self.pieces = {other: piece for other, piece in self.pieces.items() if other != place}
            self._remove_empty(place)
        self._clear_staged()

    def _remove_empty(self, place: str) -> None:
        """The folders that a piece lay in, as far as nothing of the source does any more."""
        model = model_of(place)
        if model != ROOT and all(model_of(other) != model for other in self.pieces):
            # With what a model's own code has put there.
            shutil.rmtree(self.root / model, ignore_errors=True)
        for folder in (self.root / place).parents:
            if not folder.is_relative_to(self.root) or folder == self.root:
                return
            with suppress(OSError):  # something else is in it, or it is gone
                folder.rmdir()


def remove_abandoned(cache: Cache) -> None:
    """Removes the trees of servers that are gone, so that what they alone used may go, too."""
    for folder in cache.folder.glob("trees/*/"):
        with suppress(OSError):
            descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def _name_of(address: str) -> str:
    """A repository that is one model is called by the last part of its address."""
    last = address.partition("://")[2].rstrip("/").rpartition("/")[2].partition("@")[0]
    kept = "".join(each for each in last if each.isalnum() or each in "._-+").lstrip(".")
    return kept[:100] if kept and kept not in ("aside", "lock", "staged") else "models"


def _locked(path: Path) -> int:
    """A file that is locked from the moment on that it has its name."""
    unnamed = path.with_name("lock.new")
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    unnamed.rename(path)
    return descriptor


def _exchange(one: Path, other: Path) -> None:
    """Each gets the other's name, at once where the system can."""
    if sys.platform == "linux" and _renameat2(one, other):
        return
    aside = one.with_name("aside")
    other.rename(aside)
    one.rename(other)
    aside.rename(one)


def _renameat2(one: Path, other: Path) -> bool:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    paths = (os.fsencode(one), os.fsencode(other))
    return bool(function(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0)
