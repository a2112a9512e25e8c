"""Quantiles of what was seen in the last minute, within one percent of the value."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence

NUM_AGES = 5
AGE_S = 12.0
"""Triton's window: five ages, of which the oldest is dropped as a new one begins."""
_LOG_STEP = math.log(1.02)
"""Values of one bucket differ by two percent; its middle is told."""


class Summary:
    """Owned by the event loop. Counts are kept for all time, values for the window."""

    __slots__ = ("_ages", "_began_s", "_now", "count", "total")

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began_s = now()
        self._ages: list[Counter[int]] = [Counter()]
        self.count = 0
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One more value, of 0 or more."""
        self._advance()
        self.count += 1
        self.total += value
        self._ages[-1][_bucket(value)] += 1

    def quantiles(self, wanted: Sequence[float]) -> list[float]:
        """The values below which these shares of the window's values lie; NaN without any."""
        self._advance()
        counts: Counter[int] = Counter()
        for age in self._ages:
            counts.update(age)
        ordered = sorted(counts.items())
        return [_value_at(ordered, share * counts.total()) for share in wanted]

    def _advance(self) -> None:
        ages = int((self._now() - self._began_s) / AGE_S)
        if ages:
            self._began_s += ages * AGE_S
            self._ages += [Counter() for _ in range(min(ages, NUM_AGES))]
            del self._ages[:-NUM_AGES]


def _bucket(value: float) -> int:
    return math.floor(math.log(value) / _LOG_STEP) if value >= 1 else -1


def _value_at(ordered: Sequence[tuple[int, int]], rank: float) -> float:
    seen = 0
    for bucket, count in ordered:
        seen += count
        if seen >= rank:
            return math.exp((bucket + 0.5) * _LOG_STEP) if bucket >= 0 else 0.0
    return math.nan
