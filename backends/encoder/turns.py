"""Whose turn it is to compute, of instances that share a model on a CPU."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")


class Turns(Protocol):
    """One work after another: each has all cores, and a second one would only be in its way."""

    def take(self, work: Callable[[], T]) -> T:
        """Does it in its turn. Raises what it raises."""


class InOneThread:
    """A thread that does all work, opening the model included.

    OpenMP keeps helpers for each thread that has ever computed. Where these are more than there are
    cores, all of them sleep between two operations rather than wait, and waking costs a tenth of
    the time. The thread ends with the last one who has this.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "encoder")

    def take(self, work: Callable[[], T]) -> T:
        """See Turns."""
        return self._thread.submit(work).result()


class OneAtATime:
    """In the threads of those who come, for libraries whose helpers serve any of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def take(self, work: Callable[[], T]) -> T:
        """See Turns."""
        with self._lock:
            return work()
