"""How many of the cores each of those has who compute at the same time with one model."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Cores:
    """Whoever works alone has all; of several each has its share, and computes by itself: where all
    cores work for one batch, each waits at the end of every operation for the slowest of them.
    Called by the instances' threads."""

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        """All of them."""
        self._lock = threading.Lock()
        self._num_working = 0

    @contextmanager
    def shared(self) -> Iterator[int]:
        """Held by an instance from a batch's beginning to its end; gives the number of threads to
        compute that batch with."""
        with self._lock:
            self._num_working += 1
            share = max(1, self.num_threads // self._num_working)
        try:
            yield share
        finally:
            with self._lock:
                self._num_working -= 1
