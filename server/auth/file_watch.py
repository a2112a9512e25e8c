"""Sees that files have changed, and tells once they are whole."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

PERIOD_S = 1.0
OnChange = Callable[[], bool]
"""Reads the files; returns False where that must be tried again, although they do not change."""
State = tuple[tuple[int, int, int] | None, ...]
"""Of each file its inode, size and time of change; None: it is not there."""


class FileWatch:
    """Some files that are read together. Looks by name, so links that are swapped count, too."""

    def __init__(self, paths: Sequence[Path], on_change: OnChange) -> None:
        self._paths = tuple(paths)
        self._on_change = on_change
        self._told = self._seen = self._state()
        self._is_owed = False

    def look(self) -> None:
        """Calls back when the files differ from what was told last, and have not changed since the
        look before: a certificate and its key are written one after the other."""
        state = self._state()
        if state == self._seen and (self._is_owed or state != self._told):
            self._told = state
            self._is_owed = not self._on_change()
        self._seen = state

    def _state(self) -> State:
        return tuple(map(_state, self._paths))


class FileWatches:
    """Looks every second. Owned by the event loop."""

    def __init__(self) -> None:
        self._watches: list[FileWatch] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watch: FileWatch) -> None:
        """Looks at these files, too."""
        self._watches.append(watch)

    def start(self) -> None:
        """Begins to look, if there is anything to look at."""
        if self._watches:
            self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self._look)

    def close(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        for watch in self._watches:
            watch.look()
        self.start()


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
