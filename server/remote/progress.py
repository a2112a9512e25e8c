"""What is shown while files come from afar: a bar on a terminal, log lines elsewhere."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

log = logging.getLogger(__name__)
PERIOD_S = 10.0
"""Between two log lines about the same files."""

Advance = Callable[[int], None]
"""Gets the bytes that have come, from any thread."""


@contextmanager
def shown(address: str, num_files: int, num_bytes: int, *, bar: bool) -> Iterator[Advance]:
    """What to call with the bytes that have come. `bar`: if there is a terminal."""
    console = Console(stderr=True)
    if bar and console.is_terminal:
        columns = (
            TextColumn("fetching {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(address, total=num_bytes)
            yield lambda count: progress.advance(task, count)
        return
    log.info("%s: fetching %d file(s), %s", address, num_files, readable(num_bytes))
    lines = Lines(address, num_bytes)
    yield lines.advance
    log.info("%s: fetched %s", address, readable(lines.num_bytes))


class Lines:
    """Log lines about the bytes that have come."""

    def __init__(
        self, address: str, total: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._address = address
        self._total = total
        self._monotonic = monotonic
        self._told_s = monotonic()
        self._lock = Lock()
        self.num_bytes = 0

    def advance(self, count: int) -> None:
        """Notes bytes."""
        with self._lock:
            self.num_bytes += count
            now_s = self._monotonic()
            if now_s - self._told_s < PERIOD_S:
                return
            self._told_s = now_s
        log.info("%s: %s of %s", self._address, readable(self.num_bytes), readable(self._total))


def readable(num_bytes: int) -> str:
    """A size as people write it."""
    size = float(num_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
