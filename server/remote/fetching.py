"""Brings files into the cache, several at a time, and tries again what breaks off."""

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

from trivet.server.remote.cache import Cache, Stopped
from trivet.server.remote.progress import Advance
from trivet.server.remote.source import Changed, RemoteError, Source, Stamp, Unreachable

log = logging.getLogger(__name__)
T = TypeVar("T")
MAX_FETCHES = 8
"""At a time, of one source."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a source is asked again that does not answer: twice as long a wait each time."""

    first_s: float = 0.5
    most_s: float = 30.0
    num_tries: int = 6
    """In a row without a byte more than before."""
    most_asked_s: float = 120.0
    """A source that asks for a longer wait is not waited for."""

    def wait_s(self, num_failures: int, share: float) -> float:
        """Before the next try. `share`: from 0 to 1, so that servers do not come all at once."""
        longest_s = min(self.most_s, self.first_s * 2.0 ** (num_failures - 1))
        return longest_s * (0.5 + 0.5 * share)


PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class Failures:
    """Of files that did not come."""

    by_path: Mapping[str, Exception]

    def changed(self) -> list[str]:
        """The paths of files that were no longer what they were listed as."""
        return [path for path, error in self.by_path.items() if isinstance(error, Changed)]

    def refused(self) -> dict[str, Exception]:
        """The files that the source does not give: others are not concerned."""
        return {path: error for path, error in self.by_path.items() if _is_refusal(error)}

    def first(self) -> Exception | None:
        """One to tell, if something other than a change of the file has gone wrong: one that others
        may share goes before a refusal."""
        errors = (each for each in self.by_path.values() if not isinstance(each, Changed))
        return min(errors, key=_is_refusal, default=None)


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, RemoteError) and not isinstance(error, Unreachable)


class Fetcher:
    """Fetches for one source; owned by the thread that follows it, which waits meanwhile."""

    def __init__(self, source: Source, cache: Cache, stop: Event, patience: Patience) -> None:
        self._source = source
        self._cache = cache
        self._stop = stop
        self._patience = patience

    def listing(self) -> dict[str, Stamp]:
        """Raises RemoteError or Stopped."""
        return self._tried(self._source.listing, lambda: 0)

    def fetch_all(self, files: Mapping[str, Stamp], advance: Advance) -> Failures:
        """Makes the files be in the cache. Raises Stopped."""
        waiting: SimpleQueue[str] = SimpleQueue()
        for path in files:
            waiting.put(path)
        failures: dict[str, Exception] = {}
        done: set[str] = set()

        def work() -> None:
            while not self._stop.is_set():
                try:
                    path = waiting.get_nowait()
                except Empty:
                    return
                try:
                    self._fetch(path, files[path], advance)
                    done.add(path)
                except (RemoteError, Changed, OSError, Stopped) as error:
                    failures[path] = error

        # Daemons: one that waits for a dead network must not hold up the end of the process.
        threads = [
            Thread(target=work, name=f"fetch-{number}", daemon=True)
            for number in range(min(MAX_FETCHES, len(files)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not self._stop.is_set():
                thread.join(0.2)
        if self._stop.is_set():
            raise Stopped
        for path in files.keys() - done - failures.keys():
            failures[path] = RemoteError(f"{self._source.address}: '{path}' was not fetched")
        return Failures(failures)

    def _fetch(self, path: str, stamp: Stamp, advance: Advance) -> None:
        missing = self._cache.num_bytes_missing(self._source, stamp)
        least_missing = missing

        def num_bytes_here() -> int:
            nonlocal least_missing
            least_missing = min(least_missing, self._cache.num_bytes_missing(self._source, stamp))
            return -least_missing

        self._tried(lambda: self._cache.fetch(self._source, path, stamp, advance), num_bytes_here)

    def _tried(self, action: Callable[[], T], progress: Callable[[], int]) -> T:
        """Its result. `progress`: a number that grows while tries that fail lead anywhere."""
        num_failures, before = 0, progress()
        while True:
            try:
                return action()
            except Unreachable as error:
                now = progress()
                num_failures = 1 if now > before else num_failures + 1
                before = now
                is_over = num_failures >= self._patience.num_tries
                if is_over or error.wait_s > self._patience.most_asked_s:
                    raise
                usual_s = self._patience.wait_s(num_failures, random.random())  # noqa: S311
                wait_s = max(usual_s, error.wait_s)
                level = logging.INFO if error.wait_s else logging.DEBUG
                log.log(level, "%s; next try in %.1f s", error, wait_s)
            if self._stop.wait(wait_s):
                raise Stopped
