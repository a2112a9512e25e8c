"""What is here of repositories elsewhere, as commands see it: fetched, listed, shown, removed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from trivet.server.remote.addresses import open_source
from trivet.server.remote.cache import Cache
from trivet.server.remote.cache_folder import open_cache
from trivet.server.remote.fetching import PATIENCE, Fetcher, Patience
from trivet.server.remote.mirror import Mirror
from trivet.server.remote.pieces import pieces_of
from trivet.server.remote.remembered import Remembered, forget, notes
from trivet.server.remote.source import RemoteError, Stamp, Unreachable
from trivet.server.remote.tree import Tree
from trivet.server.settings import Settings


@dataclass(frozen=True, slots=True)
class Pulled:
    """A repository elsewhere as it was when all of it was last here."""

    address: str
    files: Mapping[str, Stamp]
    num_bytes_here: int
    last_use_ns: int
    """Since 1970; 0: never."""

    @property
    def num_bytes(self) -> int:
        """Of all its files, here or not."""
        return sum(stamp.size for stamp in self.files.values())

    @property
    def is_whole(self) -> bool:
        """Whether it can be served without its source."""
        return self.num_bytes_here == self.num_bytes


class Pulls:
    """The files in one cache folder, as the commands see them."""

    def __init__(self, settings: Settings, patience: Patience = PATIENCE) -> None:
        """Raises RemoteError."""
        self._settings = settings
        self._patience = patience
        self._stop = Event()
        self._cache: Cache = open_cache(settings, self._stop)

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self._cache.folder

    def pull(self, address: str) -> Pulled:
        """Brings here what a server of the address would fetch, and goes on where the last try
        ended. Raises RemoteError."""
        source = open_source(address, self._settings)
        tree = Tree(source, self._cache)
        fetcher = Fetcher(source, self._cache, self._stop, self._patience)
        mirror = Mirror(source, self._cache, tree, fetcher, self._stop)
        try:
            is_written = mirror.sync(settle_s=0.0, bar=True)
        except Unreachable as error:
            raise Unreachable(f"{error}. {self._without_a_network(address)}") from None
        finally:
            tree.close()
        if is_written or mirror.left_out:
            why = next(iter(mirror.left_out.values()), "somebody writes to it; pull it again")
            raise RemoteError(f"{address}: {why}")
        return self.of(source.address)

    def of(self, address: str) -> Pulled:
        """One that was pulled. Raises RemoteError where it was not."""
        found = next((each for each in self.all() if each.address == address), None)
        if found is None:
            raise RemoteError(f"{address} is not in {self.folder}; `trivet pull {address}` gets it")
        return found

    def all(self) -> list[Pulled]:
        """All of them, by address; those of which servers have fetched some models are one each."""
        return sorted((self._seen(each) for each in self._notes()), key=lambda each: each.address)

    def remove(self, address: str) -> Pulled:
        """Forgets one and frees what it takes on the disk, but for what servers use now. Raises
        RemoteError."""
        found = self.of(address)
        for note in self._notes():
            if note.address == address:
                for stamp in note.files.values():
                    self._cache.remove(note, stamp)
                forget(note)
        return found

    @contextmanager
    def opened(self, address: str) -> Iterator[Path]:
        """Its files as a repository, for a while. Raises RemoteError."""
        found = self.of(address)
        if not found.is_whole:
            raise RemoteError(
                f"{address} is not wholly here any more; `trivet pull {address}` gets what lacks"
            )
        note = next(each for each in self._notes() if each.address == address)
        tree = Tree(note, self._cache)
        try:
            tree.switch(pieces_of(note.files))
            yield tree.root
        finally:
            tree.close()

    def _notes(self) -> list[Remembered]:
        return list(notes(self._cache.folder))

    def _seen(self, note: Remembered) -> Pulled:
        here = [stamp for stamp in note.files.values() if self._cache.has(note, stamp)]
        uses = (self._cache.last_use_ns(note, stamp) for stamp in here)
        size = sum(stamp.size for stamp in here)
        return Pulled(note.address, note.files, size, max(uses, default=0))

    def _without_a_network(self, address: str) -> str:
        return (
            f"Without a network: run `trivet pull {address}` on a machine that has one, copy its "
            f"folder (`trivet list` names it) to {self.folder}, and set HF_HUB_OFFLINE=1"
        )
