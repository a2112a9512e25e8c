"""Keeps a folder here like a repository elsewhere: listing, fetching, one switch.

A model is switched when all its files have come and a second listing says that nothing of it has
changed meanwhile; until then what there is of it stays. So does everything when the source cannot
be read. Models wait for themselves only, and one that the source does not give is left out.
"""

import logging
from collections.abc import Mapping
from threading import Event

from trivet.server.remote.cache import Cache, Stopped
from trivet.server.remote.chosen import Chosen, taken
from trivet.server.remote.fetching import Failures, Fetcher
from trivet.server.remote.paths import Checked, checked
from trivet.server.remote.pieces import ROOT, Pieces, model_of, pieces_of
from trivet.server.remote.progress import readable, shown
from trivet.server.remote.remembered import IN_PART, remember, remembered
from trivet.server.remote.source import Doubtful, RemoteError, Source, Stamp
from trivet.server.remote.tree import Tree

log = logging.getLogger(__name__)
NUM_SWITCHES = 3
"""How often files are fetched again that another server's trimming has removed meanwhile."""
_NOT_GIVEN = (
    "not all of its files could be fetched from where the repository lies; the server log has the "
    "details"
)
_NOTHING_GIVEN = (
    "nothing could be fetched from where the repository lies, so none of its models is here; the "
    "server log has the details"
)


class Mirror:
    """One source and its tree. Owned by the thread that follows the source."""

    def __init__(
        self,
        source: Source,
        cache: Cache,
        tree: Tree,
        fetcher: Fetcher,
        stop: Event,
        chosen: Chosen | None = None,
    ) -> None:
        """`chosen`: what of it is wanted; None: all."""
        self.source = source
        self.tree = tree
        self.unfetched: frozenset[str] = frozenset()
        """Models and lone files that are there and not wanted here."""
        self.left_out: Mapping[str, str] = {}
        """By model: why it is not, or not wholly, here. It tells no addresses."""
        self._cache = cache
        self._fetcher = fetcher
        self._stop = stop
        self._chosen = chosen or Chosen()
        is_part = self._chosen.names is not None
        # Another server may want all of the same address.
        self._memory = f"{source.address}{IN_PART if is_part else ''}"
        self._told: frozenset[str] = frozenset()
        """What has been said about paths and models that are left as they are."""
        self._taken: tuple[dict[str, Stamp], object] | None = None
        """The last listing and what of it was wanted, if the tree is all of that."""

    def sync(self, *, settle_s: float, bar: bool = False) -> bool:
        """One round; returns whether models wait for the next because they are being written.

        `settle_s`: how long what is new must have been the same. Raises RemoteError or OSError,
        after it has switched what could be, and Stopped.
        """
        names = self._chosen.names
        found = self._fetcher.listing()
        if (found, names) == self._taken:
            return False
        self._taken = None
        listed = checked(found)
        everything = pieces_of(listed.files)
        self._require_files(everything)
        wanted = taken(everything, names, self.tree.root.name)
        self.unfetched = frozenset(map(model_of, everything.keys() - wanted.keys()))
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
        held = refused.keys() | failed | moving
        is_known = failures.by_path.keys() == failures.refused().keys()
        self._switch(wanted, held, is_remembered=is_known)
        not_given = {_model_in(path, wanted): each for path, each in failures.refused().items()}
        self.left_out = {**dict.fromkeys(not_given, _NOT_GIVEN), **refused}
        self._tell(listed, not_given, moving)
        # Whoever serves nothing is told why.
        if not is_known or not self.tree.pieces:
            self._raise(failures)
        if not held:
            self._taken = (found, names)
        return bool(moving)

    def _require_files(self, pieces: Pieces) -> None:
        if not pieces and (self.tree.pieces or self._remembered()):
            raise Doubtful(
                f"{self.source.address} holds no files any more; put the models back, or start the "
                "server without it, or with an empty --remote-cache, if it shall serve none of them"
            )

    def restore(self) -> bool:
        """Makes the tree what the source last held, if all of it is still here: for a start without
        the source. Returns whether it holds anything. Raises OSError."""
        if files := self._remembered():
            self.tree.switch(pieces_of(files))
        return bool(self.tree.pieces)

    def leave_out(self) -> None:
        """Shows that nothing is here, where it is not known of which models: for a start without
        the source. Nobody follows it yet."""
        if not self.left_out:
            self.left_out = {ROOT: _NOTHING_GIVEN}

    def _remembered(self) -> dict[str, Stamp]:
        files = remembered(self._cache.folder, self._memory)
        return files if all(self._cache.has(self.source, each) for each in files.values()) else {}

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
        everything = pieces_of(checked(self._fetcher.listing()).files)
        now = taken(everything, self._chosen.names, self.tree.root.name)
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
            remember(self._cache.folder, self._memory, _files_of(target))
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

    def _tell(self, listed: Checked, not_given: Mapping[str, Exception], moving: set[str]) -> None:
        """Each once while it holds."""
        notes = dict.fromkeys(listed.refused.values(), logging.WARNING)
        for model, error in not_given.items():
            notes[f"{_named(model)} is left as it is: {error}"] = logging.WARNING
        for model in moving:
            notes[f"{_named(model)} is being written; it is taken when it is still"] = logging.INFO
        for note, level in notes.items():
            if note not in self._told:
                log.log(level, "%s: %s", self.source.address, note)
        self._told = frozenset(notes)


def _models_refused(listed: Checked, wanted: Pieces) -> dict[str, str]:
    """And why."""
    return {_model_in(path, wanted): why for path, why in listed.refused.items()}


def _named(model: str) -> str:
    return f"model '{model}'" if model != ROOT else "the model"


def _model_in(path: str, wanted: Pieces) -> str:
    return ROOT if ROOT in wanted else path.partition("/")[0]


def _files_of(pieces: Pieces) -> dict[str, Stamp]:
    """By path below the repository."""
    return {
        f"{place}/{below}".strip("/"): stamp
        for place, piece in pieces.items()
        for below, stamp in piece.files.items()
    }
