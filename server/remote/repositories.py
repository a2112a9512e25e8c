"""The repositories of one server, of which some lie elsewhere: as folders here, kept up to date."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Event

from trivet.backends.api.naming import key_of, name_in
from trivet.backends.registry import abouts
from trivet.server.remote.addresses import open_source
from trivet.server.remote.cache import Cache, Stopped
from trivet.server.remote.cache_folder import open_cache
from trivet.server.remote.chosen import Chosen
from trivet.server.remote.configured import OPTION, configured, parse_configs
from trivet.server.remote.fetching import PATIENCE, Fetcher, Patience
from trivet.server.remote.follower import Follower
from trivet.server.remote.mirror import Mirror
from trivet.server.remote.source import OneModel, RemoteError
from trivet.server.remote.tree import Tree
from trivet.server.repository.layout import ModelFolder, model_of_file
from trivet.server.repository.scan import NAME, RepositoryUnreadableError, Snapshot, scan
from trivet.server.settings import Settings

log = logging.getLogger(__name__)
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
        self._mirrors: list[Mirror] = []
        self._moving: list[tuple[Path, OneModel]] = []
        """What goes on to other versions, by its folder here."""
        self._chosen = Chosen(_names_at_first(settings))
        self.addresses: dict[Path, str] = {}
        """What folders here stand for."""
        try:
            self._configs = parse_configs(settings.remote_config)
            self.roots = tuple(map(self._folder_of, settings.model_repository))
            self._check_configs()
        except (RemoteError, OSError) as error:
            raise RepositoryUnreadableError(str(error)) from error

    async def fetch(self) -> None:
        """Brings here for the first time what is wanted. An address that gives nothing is left out
        for now. Raises RepositoryUnreadableError if there is no other repository: such a server
        would have nothing to serve, and whoever has mistyped its address shall see that at once."""
        # Two bars would write over each other.
        bar = not self._settings.no_progress and len(self._followers) == 1
        failed = await self._failed(follower.start(bar=bar) for follower in self._followers)
        if failed and len(failed) == len(set(self.roots)):
            raise RepositoryUnreadableError("; ".join(map(str, failed.values())))
        for mirror in self._mirrors:
            if error := failed.get(mirror.tree.root):
                mirror.leave_out()
                log.error("%s; the other repositories are served. %s", error, self._when_again())

    def _when_again(self) -> str:
        mode = self._settings.model_control_mode
        if mode == "none":
            return "It is not asked again (--model-control-mode none)"
        if mode == "explicit":
            return "It is asked again when a model is loaded"
        return f"It is asked again every {self._settings.repository_poll_secs:g} s"

    async def _failed(self, rounds: "Iterable[Future[None]]") -> dict[Path, Exception]:
        """Waits for one round of each follower; by root: what could not be read, and why. Raises
        RepositoryUnreadableError when the server ends."""
        results = await asyncio.gather(*map(asyncio.wrap_future, rounds), return_exceptions=True)
        failed: dict[Path, Exception] = {}
        for mirror, error in zip(self._mirrors, results, strict=True):
            if isinstance(error, RemoteError | OSError):
                failed[mirror.tree.root] = error
            elif isinstance(error, Stopped):
                raise RepositoryUnreadableError("the server ends") from error
            elif error is not None:
                raise error
        return failed

    @property
    def names(self) -> list[str]:
        """What operators call them."""
        return [self.addresses.get(root, str(root)) for root in self.roots]

    def scan(self) -> Snapshot:
        """What lies in all of them now. Raises RepositoryUnreadableError."""
        found = scan(
            self.roots,
            is_namespaced=self._settings.model_namespacing,
            addresses=self.addresses,
        )
        left_out = {each.key: each for each in self._left_out()}
        seen = found.models.keys() | found.problems.keys()
        more = {key: folder for key, folder in left_out.items() if key not in seen}
        return Snapshot({**found.models, **more}, found.problems) if more else found

    def _left_out(self) -> Iterator[ModelFolder]:
        """Models that could not be brought here."""
        for mirror in self._mirrors:
            root = mirror.tree.root
            for model, why in mirror.left_out.items():
                name = model or self._whole_name(root)
                if NAME.fullmatch(name):
                    namespace = self._namespace_of(root)
                    yield ModelFolder(name, root, (), {}, advice=why, namespace=namespace)

    def _whole_name(self, root: Path) -> str:
        """What a repository is called that is, or may be, one model."""
        return next((source.model for place, source in self._moving if place == root), root.name)

    def unfetched(self) -> dict[str, str]:
        """By key: the names of models elsewhere that nobody has wanted yet."""
        known = abouts().values()
        found: dict[str, str] = {}
        for mirror in self._mirrors:
            root, pieces = mirror.tree.root, mirror.unfetched
            for place in pieces:
                name = model_of_file(place, known) or place or root.name
                found[key_of(self._namespace_of(root), name)] = name
        return found

    def _namespace_of(self, root: Path) -> str:
        return self.addresses.get(root, str(root)) if self._settings.model_namespacing else ""

    async def refresh(self, names: Iterable[str]) -> None:
        """Brings here what there is now, with these models if only some are wanted. Raises
        RepositoryUnreadableError if what cannot be read has one of them, or may have it."""
        wanted = frozenset(names)
        self._chosen.add(wanted)
        failed = await self._failed(follower.sync() for follower in self._followers)
        if not failed:
            return
        found = (await asyncio.to_thread(self.scan)).models.values()
        here = {each.name for each in found if not _is_of(each.path, failed)}
        there = {each.name for each in found if _is_of(each.path, failed)}
        told = "; ".join(map(str, failed.values()))
        if not wanted <= here - there:
            raise RepositoryUnreadableError(told)
        log.warning("%s; what lies in other repositories is loaded", told)

    def give_up(self, names: Iterable[str]) -> None:
        """Nobody wants these models any more. Their files go with the next refresh."""
        self._chosen.discard(names)

    def note_serving(self, key: str, versions: Iterable[int]) -> None:
        """These versions of a model serve now."""
        for root, source in self._moving:
            if key == key_of(self._namespace_of(root), source.model):
                source.keep(frozenset(versions))

    def is_elsewhere(self, path: Path) -> bool:
        """Whether a folder here is of a repository that lies elsewhere."""
        return _is_of(path, self.addresses)

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
        followed = zip(self._followers, self._mirrors, strict=True)
        await asyncio.gather(*(asyncio.to_thread(_close, f, m.tree) for f, m in followed))

    def _folder_of(self, repository: Path | str) -> Path:
        if isinstance(repository, Path):
            return repository
        source = open_source(repository, self._settings)
        for root, address in self.addresses.items():
            if address == source.address:  # given twice, as folders may be
                return root
        if self._cache is None:
            self._cache = open_cache(self._settings, self._stop)
        tree = Tree(source, self._cache)
        if isinstance(source, OneModel):
            self._moving.append((tree.root, source))
        source = configured(source, self._configs)
        fetcher = Fetcher(source, self._cache, self._stop, self._patience)
        mirror = Mirror(source, self._cache, tree, fetcher, self._stop, self._chosen)
        self._mirrors.append(mirror)
        self._followers.append(Follower(mirror, source.address, self._stop))
        self.addresses[tree.root] = source.address
        return tree.root

    def _check_configs(self) -> None:
        models = {source.model for _, source in self._moving}
        for name, file in self._configs.items():
            if name not in models:
                there = ", ".join(sorted(models)) or "none"
                raise RemoteError(
                    f"{OPTION}={name}={file}: no address of a hub or registry has a model "
                    f"'{name}'; there is {there}. A model in a folder or bucket has its "
                    "config.pbtxt there"
                )


def _names_at_first(settings: Settings) -> tuple[str, ...] | None:
    """Which models are brought here at the start; None: all. Others when somebody loads them."""
    is_all = settings.model_control_mode != "explicit" or "*" in settings.load_model
    return None if is_all else tuple(map(name_in, settings.load_model))


def _close(follower: Follower, tree: Tree) -> None:
    # One that hangs may write yet; the next server removes what it leaves.
    if follower.close(CLOSE_S):
        tree.close()


def _is_of(path: Path, roots: Iterable[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)
