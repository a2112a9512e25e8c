"""The repositories of one server, of which some lie elsewhere: as folders here, kept up to date."""

import asyncio
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from threading import Event

from trivet.server.remote.addresses import open_source
from trivet.server.remote.cache import Cache, Stopped
from trivet.server.remote.fetching import PATIENCE, Fetcher, Patience
from trivet.server.remote.follower import Follower
from trivet.server.remote.mirror import Mirror
from trivet.server.remote.source import RemoteError
from trivet.server.remote.tree import Tree, remove_abandoned
from trivet.server.repository.scan import RepositoryUnreadableError, Snapshot, scan
from trivet.server.settings import Settings

CLOSE_S = 1.0
"""How long threads have at the end to notice it; one that hangs in a dead network does not."""


class Repositories:
    """Owns what keeps repositories from elsewhere, if there are any. On the event loop."""

    def __init__(self, settings: Settings, patience: Patience = PATIENCE) -> None:
        """Asks no source yet. Raises RepositoryUnreadableError."""
        self._patience = patience
        self._settings = settings
        self._stop = Event()
        self._cache: Cache | None = None
        self._followers: list[Follower] = []
        self._trees: list[Tree] = []
        self.addresses: dict[Path, str] = {}
        """What folders here stand for."""
        try:
            self.roots = tuple(map(self._folder_of, settings.model_repository))
        except (RemoteError, OSError) as error:
            raise RepositoryUnreadableError(str(error)) from error

    async def fetch(self) -> None:
        """Brings everything here for the first time. Raises RepositoryUnreadableError."""
        # Two bars would write over each other.
        bar = not self._settings.no_progress and len(self._followers) == 1
        await _all(follower.start(bar=bar) for follower in self._followers)

    @property
    def names(self) -> list[str]:
        """What operators call them."""
        return [self.addresses.get(root, str(root)) for root in self.roots]

    def scan(self) -> Snapshot:
        """What lies in all of them now. Raises RepositoryUnreadableError."""
        return scan(
            self.roots,
            is_namespaced=self._settings.model_namespacing,
            addresses=self.addresses,
        )

    async def refresh(self) -> None:
        """Brings here what there is now. Raises RepositoryUnreadableError."""
        await _all(follower.sync() for follower in self._followers)

    def follow(self, notice: Callable[[], None]) -> None:
        """From now on looks every `--repository-poll-secs`, and calls `notice` on the loop after
        each look."""
        loop = asyncio.get_running_loop()

        def tell() -> None:
            if not self._stop.is_set():
                loop.call_soon_threadsafe(notice)

        for follower in self._followers:
            follower.follow(self._settings.repository_poll_secs, tell)

    def end(self) -> None:
        """Breaks off what is under way; what serves keeps its files."""
        self._stop.set()

    async def close(self) -> None:
        """Removes the folders: nothing serves any more."""
        self._stop.set()
        followed = zip(self._followers, self._trees, strict=True)
        await asyncio.gather(*(asyncio.to_thread(_close, *each) for each in followed))

    def _folder_of(self, repository: Path | str) -> Path:
        if isinstance(repository, Path):
            return repository
        source = open_source(repository, self._settings)
        for root, address in self.addresses.items():
            if address == source.address:  # given twice, as folders may be
                return root
        if self._cache is None:
            self._cache = self._opened_cache()
        tree = Tree(source, self._cache)
        fetcher = Fetcher(source, self._cache, self._stop, self._patience)
        mirror = Mirror(source, self._cache, tree, fetcher, self._stop)
        self._trees.append(tree)
        self._followers.append(Follower(mirror, source.address, self._stop))
        self.addresses[tree.root] = source.address
        return tree.root

    def _opened_cache(self) -> Cache:
        given = self._settings.remote_cache
        folder = Path(given) if given else _default_folder()
        try:
            cache = Cache(folder.absolute(), self._settings.remote_cache_size, self._stop)
        except OSError as error:
            raise RemoteError(
                f"the folder for files from elsewhere, '{folder}', cannot be made: "
                f"{error.strerror}; choose another one (--remote-cache)"
            ) from error
        remove_abandoned(cache)
        return cache


def _close(follower: Follower, tree: Tree) -> None:
    # One that hangs may write yet; the next server removes what it leaves.
    if follower.close(CLOSE_S):
        tree.close()


async def _all(rounds: Iterable["Future[None]"]) -> None:
    results = await asyncio.gather(*map(asyncio.wrap_future, rounds), return_exceptions=True)
    for error in results:
        if isinstance(error, RemoteError | OSError):
            raise RepositoryUnreadableError(str(error)) from error
        if isinstance(error, Stopped):
            raise RepositoryUnreadableError("the server ends") from error
        if error is not None:
            raise error


def _default_folder() -> Path:
    """Where users' programs keep what can be fetched again (XDG Base Directory Specification)."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "trivet"
