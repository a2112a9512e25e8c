"""Whether a batch is cheaper to compute on the event loop than to hand to a thread. Pure.

Handing a batch to a worker's thread and back costs two context switches and two waits for the
interpreter lock: 50 to 100 us, ten times what a small model takes. So a model that has shown itself
to be faster than that is computed where its request is, until it is slow there.
"""

FAST_NS = 100_000
"""Mean CPU time of the batches that may run on the loop: a tenth of what may block the loop."""
SLOW_NS = 10 * FAST_NS
"""One run that takes this long is enough."""
FIRST_TRIAL = 32
"""Runs that must be fast, one after another, before a size is computed on the loop."""
LONGEST_TRIAL = 4096
_MEMORY = 16
"""Runs that the mean looks back, roughly."""


class InlinePolicy:
    """Learns from the CPU time of a model's batches. Owned by the event loop."""

    __slots__ = ("_enabled", "_largest", "_limit", "_mean_ns", "_num_fast", "_trial")

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._limit = 0
        self._mean_ns = 0.0
        self._trial = FIRST_TRIAL
        self._num_fast = 0
        self._largest = 0

    def allows(self, size: int) -> bool:
        """Whether a batch of `size` items may run on the loop now."""
        return size <= self._limit

    def observe(self, size: int, cpu_ns: int | None) -> None:
        """A batch of `size` items took this CPU time, wherever it ran; None: not known."""
        if cpu_ns is None or not self._enabled:
            return
        if size <= self._limit:
            self._mean_ns += (cpu_ns - self._mean_ns) / _MEMORY
            if self._mean_ns > FAST_NS or cpu_ns > SLOW_NS:
                self._relapse(size)
        elif cpu_ns > FAST_NS:
            self._num_fast = self._largest = 0
        else:
            self._try(size)

    def _try(self, size: int) -> None:
        self._num_fast += 1
        self._largest = max(self._largest, size)
        if self._num_fast >= self._trial:
            self._limit, self._num_fast, self._mean_ns = self._largest, 0, 0.0

    def _relapse(self, size: int) -> None:
        # Smaller batches may still be fast. Each relapse doubles the next trial, so that sizes at
        # the border settle in the thread.
        self._limit = size // 2
        self._trial = min(2 * self._trial, LONGEST_TRIAL)
        self._num_fast = self._largest = 0
        self._mean_ns = 0.0
