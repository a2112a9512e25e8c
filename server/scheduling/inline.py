"""Whether a batch is cheaper to compute on the event loop than to hand to a thread. Pure.

Handing a batch to a worker's thread and back costs two context switches and two waits for the
interpreter lock: 50 to 100 us, ten times what a small model takes. So a model that has shown itself
to be faster than that is computed where its request is, until it is slow there.
"""

from collections.abc import Callable

from trivet.backends.api import Batch, Signature
from trivet.backends.api.value import value
from trivet.server.scheduling.joining import MakeBatch

FAST_NS = 100_000
"""Mean CPU time of the batches that may run on the loop: a tenth of what may block the loop."""
SLOW_NS = 10 * FAST_NS
"""One run that takes this long is enough."""
FIRST_TRIAL = 32
"""Runs that must be fast, one after another, before a size is computed on the loop."""
LONGEST_TRIAL = 4096
_MEMORY = 16
"""Runs that the mean looks back, roughly."""


@value
class Extent:
    """What a batch's cost goes by, in one unit for each model."""

    total: int
    largest: int = 0
    """Of its requests: one large request may cost more than many small ones that are as much."""


NOTHING = Extent(0)
Measure = Callable[[Batch], Extent]


def in_items(batch: Batch) -> Extent:
    """For models of fixed shapes: batches of one size cost the same, whatever is in them."""
    return Extent(batch.size)


def in_bytes(batch: Batch) -> Extent:
    """For models whose requests may be of any size."""
    total = largest = 0
    for request in batch.requests:
        size_bytes = 0
        for tensor in request.inputs.values():
            size_bytes += tensor.nbytes
        total += size_bytes
        if size_bytes > largest:
            largest = size_bytes
    return Extent(total, largest)


def measure_of(
    signature: Signature, make_batch: MakeBatch, *, has_fixed_shapes: bool
) -> Measure | None:
    """What the cost of a model's batches goes by; None where nothing tells: it goes on answering
    after a batch, or its batches are not the requests' own tensors."""
    if signature.decoupled or make_batch is not Batch:
        return None
    return in_items if has_fixed_shapes else in_bytes


class InlinePolicy:
    """Learns from the CPU time of a model's batches. Owned by the event loop."""

    __slots__ = ("_enabled", "_largest", "_limit", "_mean_ns", "_num_fast", "_total", "_trial")

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._limit = NOTHING
        self._mean_ns = 0.0
        self._trial = FIRST_TRIAL
        self._num_fast = 0
        self._total = self._largest = 0

    def allows(self, extent: Extent) -> bool:
        """Whether a batch may run on the loop now: no more, and no larger, than was tried."""
        limit = self._limit
        return extent.total <= limit.total and extent.largest <= limit.largest

    def observe(self, extent: Extent, cpu_ns: int | None) -> None:
        """A batch took this CPU time, wherever it ran; None: not known."""
        if cpu_ns is None or not self._enabled:
            return
        if self.allows(extent):
            self._mean_ns += (cpu_ns - self._mean_ns) / _MEMORY
            if self._mean_ns > FAST_NS or cpu_ns > SLOW_NS:
                self._relapse(extent)
        elif cpu_ns > FAST_NS:
            self._num_fast = self._total = self._largest = 0
        else:
            self._try(extent)

    def _try(self, extent: Extent) -> None:
        self._num_fast += 1
        self._total = max(self._total, extent.total)
        self._largest = max(self._largest, extent.largest)
        if self._num_fast >= self._trial:
            self._limit = Extent(self._total, self._largest)
            self._num_fast, self._mean_ns = 0, 0.0

    def _relapse(self, extent: Extent) -> None:
        # Smaller batches may still be fast. Each relapse doubles the next trial, so that sizes at
        # the border settle in the thread.
        self._limit = Extent(extent.total // 2, extent.largest)
        self._trial = min(2 * self._trial, LONGEST_TRIAL)
        self._num_fast = self._total = self._largest = 0
        self._mean_ns = 0.0
