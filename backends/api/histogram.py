"""Counts per bucket: what a duration or a size is told as."""

from bisect import bisect_left


class Histogram:
    """Counts per bucket; the last one is for everything above the last bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total: float = 0  # whole as long as the values are: exact, however many

    def observe(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
