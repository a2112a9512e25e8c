"""Whether a batch is cheaper to compute on the event loop than to hand to a thread. Pure.

Handing a batch to a worker's thread and back costs two context switches and two waits for the
interpreter lock: 50 to 100 us, ten times what a small model takes. So a model that has shown itself
to be faster than that is computed where its request is; one slow run sends it back to its thread.
"""

FAST_NS = 100_000
"""CPU time of a batch up to which it may run on the loop: a tenth of what may block the loop."""
FIRST_TRIAL = 32
"""Runs that must be fast, one after another, before a size is computed on the loop."""


class InlinePolicy:
    """Learns from the CPU time of a model's batches. Owned by the event loop."""

    __slots__ = ("_enabled", "_largest", "_limit", "_num_fast", "_trial")

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._limit = 0
        self._trial = FIRST_TRIAL
        self._num_fast = 0
        self._largest = 0

    def allows(self, size: int) -> bool:
        """Whether a batch of `size` items may run on the loop now."""
        return size <= self._limit

    def observe(self, size: int, cpu_ns: int) -> None:
        """A batch of `size` items took this CPU time, wherever it ran."""
        if not self._enabled:
            return
        if cpu_ns > FAST_NS:
            # Each slow run doubles the trial, so that a model at the border settles in its thread.
            if size <= self._limit:
                self._trial *= 2
                self._limit = 0
            self._num_fast = self._largest = 0
        elif size > self._limit:
            self._num_fast += 1
            self._largest = max(self._largest, size)
            if self._num_fast >= self._trial:
                self._limit, self._num_fast = self._largest, 0
