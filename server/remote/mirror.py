"""Keeps a folder here like a repository elsewhere: listing, fetching, one switch.

A model is switched when all its files have come and a second listing says that nothing of it has
changed meanwhile; until then what there is of it stays. So does everything when the source cannot
be read. Models wait for themselves only.
"""

import logging
from collections.abc import Mapping
from threading import Event

from trivet.server.remote.cache import Cache, Stopped
from trivet.server.remote.fetching import Failures, Fetcher
from trivet.server.remote.paths import Checked, checked
from trivet.server.remote.pieces import ROOT, Pieces, model_of, pieces_of
from trivet.server.remote.progress import readable, shown
from trivet.server.remote.remembered import remember, remembered
from trivet.server.remote.source import RemoteError, Source, Stamp
from trivet.server.remote.tree import Tree

log = logging.getLogger(__name__)
NUM_SWITCHES = 3
"""How often files are fetched again that another server's trimming has removed meanwhile."""


class Mirror:
    """One source and its tree. Owned by the thread that follows the source."""

    def __init__(
        self, source: Source, cache: Cache, tree: Tree, fetcher: Fetcher, stop: Event
    ) -> None:
        self.source = source
        self.tree = tree
        self._cache = cache
        self._fetcher = fetcher
        self._stop = stop
        self._told: frozenset[str] = frozenset()
        """What has been said about paths and models that are left as they are."""
        self._taken: dict[str, Stamp] | None = None
        """The last listing, if the tree is all that it says."""

    def sync(self, *, settle_s: float, bar: bool = False) -> bool:
        """One round; returns whether models wait for the next because they are being written.

        `settle_s`: how long what is new must have been the same. Raises RemoteError or OSError,
        after it has switched what could be, and Stopped.
        """
        found = self._fetcher.listing()
        if found == self._taken:
            return False
        self._taken = None
        listed = checked(found)
        wanted = pieces_of(listed.files)
        self._require_files(wanted)
        refused = _models_refused(listed, wanted)
        changed = {
            place: piece
            for place, piece in wanted.items()
            if self.tree.pieces.get(place) != piece and model_of(place) not in refused
        }
        failures = self._fetch(_files_of(changed), bar=bar)
        failed = {_model_in(path, wanted) for path in failures.by_path}
        moving = {_model_in(path, wanted) for path in failures.changed()}
        moving |= self._moving(wanted, settle_s) if changed else set()
        held = refused | failed | moving
        self._switch(wanted, held, is_remembered=not failed)
        self._tell(listed, moving)
        self._raise(failures)
        if not held:
            self._taken = found
        return bool(moving)

    def _require_files(self, wanted: Pieces) -> None:
        if not wanted and self.tree.pieces:
            raise RemoteError(
                f"{self.source.address} holds no files any more; put the models back, or stop the "
                "server if it shall serve none"
            )

    def restore(self) -> bool:
        """Makes the tree what the source last held, if all of it is still here: for a start without
        the source. Raises OSError."""
        files = remembered(self._cache.folder, self.source.address)
        if not files or not all(self._cache.has(self.source, each) for each in files.values()):
            return False
        self.tree.switch(pieces_of(files))
        return True

    def _fetch(self, files: Mapping[str, Stamp], *, bar: bool) -> Failures:
        missing = {
            path: each for path, each in files.items() if not self._cache.has(self.source, each)
        }
        if not missing:
            return Failures({})
        num_bytes = sum(
            self._cache.num_bytes_missing(self.source, each) for each in missing.values()
        )
        num_free = self._cache.num_bytes_free()
        if num_bytes > num_free:
            raise RemoteError(
                f"{self.source.address} has {readable(num_bytes)} that are not here yet, and "
                f"{self._cache.folder} has {readable(num_free)} left; choose a folder on a larger "
                "disk (--remote-cache)"
            )
        with shown(self.source.address, len(missing), num_bytes, bar=bar) as advance:
            return self._fetcher.fetch_all(missing, advance)

    def _moving(self, wanted: Pieces, settle_s: float) -> set[str]:
        """The models that are not what they were when they were listed."""
        if self._stop.wait(settle_s):
            raise Stopped
        now = pieces_of(checked(self._fetcher.listing()).files)
        places = wanted.keys() | now.keys()
        return {model_of(place) for place in places if wanted.get(place) != now.get(place)}

    def _switch(self, wanted: Pieces, held: set[str], *, is_remembered: bool) -> None:
        before = self.tree.pieces
        if held and ROOT in {*wanted, *before}:
            return  # the whole repository is one model
        target = {place: piece for place, piece in wanted.items() if model_of(place) not in held}
        target |= {place: piece for place, piece in before.items() if model_of(place) in held}
        self._switch_to(target)
        if is_remembered:
            remember(self._cache.folder, self.source.address, _files_of(target))
        self._cache.trim()

    def _switch_to(self, target: Pieces) -> None:
        for _ in range(NUM_SWITCHES):
            try:
                self.tree.switch(target)
            except FileNotFoundError:
                self._raise(self._fetch(_files_of(target), bar=False))
            else:
                return
        raise RemoteError(
            f"{self.source.address}: files vanish from {self._cache.folder} as soon as they are "
            "there; give the servers that share it more room (--remote-cache-size) or a folder each"
        )

    def _raise(self, failures: Failures) -> None:
        error = failures.first()
        if isinstance(error, OSError):
            raise RemoteError(
                f"{self.source.address} cannot be written to {self._cache.folder}: {error.strerror}"
            ) from error
        if error is not None:
            raise error

    def _tell(self, listed: Checked, moving: set[str]) -> None:
        """Each once while it holds."""
        notes = dict.fromkeys(listed.refused.values(), logging.WARNING)
        for model in moving:
            named = f"model '{model}'" if model != ROOT else "the model"
            notes[f"{named} is being written; it is taken when it is still"] = logging.INFO
        for note, level in notes.items():
            if note not in self._told:
                log.log(level, "%s: %s", self.source.address, note)
        self._told = frozenset(notes)


def _models_refused(listed: Checked, wanted: Pieces) -> set[str]:
    if ROOT in wanted:
        return {ROOT} if listed.refused else set()
    return {path.partition("/")[0] for path in listed.refused}


def _model_in(path: str, wanted: Pieces) -> str:
    return ROOT if ROOT in wanted else path.partition("/")[0]


def _files_of(pieces: Pieces) -> dict[str, Stamp]:
    """By path below the repository."""
    return {
        f"{place}/{below}".strip("/"): stamp
        for place, piece in pieces.items()
        for below, stamp in piece.files.items()
    }
