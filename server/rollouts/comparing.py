"""Whether the outcomes of one arm are higher than another's: a test that may be looked at whenever
one likes.

The mixture sequential probability ratio test for the difference of two means (Johari, Koomen,
Pekelis and Walsh, "Peeking at A/B tests", KDD 2017, and "Always valid inference", Operations
Research 2022): differences are weighed by a normal distribution of variance t. With V, the
variance of the observed difference d, the ratio is sqrt(V / (V + t)) exp(t d^2 / (2 V (V + t)));
one over the largest so far is a chance that holds at any time. Solved for the difference it is a
confidence sequence: an interval that holds at all times together. It is right as far as means of so
many values are normal, so it says nothing before there are a few of each.
"""

from dataclasses import dataclass
from math import exp, inf, log, sqrt

LEAST = 100
"""Outcomes of each arm before anything is said."""
CONFIDENCE = 0.95


@dataclass(slots=True)
class Outcomes:
    """Numbers that were reported for one arm: their mean and variance (Welford 1962)."""

    count: int = 0
    mean: float = 0.0
    _squares: float = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self.count += 1
        before = value - self.mean
        self.mean += before / self.count
        self._squares += before * (value - self.mean)

    @property
    def variance(self) -> float:
        """Of the numbers."""
        return self._squares / (self.count - 1) if self.count > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher an arm's outcomes are than the first one's."""

    mean: float | None
    """None: one of both has no number yet."""
    low: float
    high: float
    """Between these the true difference lies at all times, with `CONFIDENCE`."""
    chance: float
    """At most how likely so large a difference, or a larger one, ever is between arms alike."""


class Comparison:
    """Of two arms, from their first outcomes on."""

    __slots__ = ("_chance", "_mixed", "first", "second")

    def __init__(self, first: Outcomes, second: Outcomes) -> None:
        self.first = first
        self.second = second
        self._mixed = 0.0
        """The variance of the mixture; fixed by the first outcomes, and never again."""
        self._chance = 1.0

    def update(self) -> None:
        """An outcome has come."""
        variance = self._variance()
        if variance <= 0.0:
            return
        if not self._mixed:
            self._mixed = variance
        difference, total = self.second.mean - self.first.mean, variance + self._mixed
        exponent = self._mixed * difference**2 / (2 * variance * total)
        ratio = log(variance / total) / 2 + exponent
        self._chance = min(self._chance, exp(-min(ratio, 700.0)))

    def _variance(self) -> float:
        if min(self.first.count, self.second.count) < LEAST:
            return 0.0
        return self.first.variance / self.first.count + self.second.variance / self.second.count

    @property
    def difference(self) -> Difference:
        """What can be said by now."""
        if not self.first.count or not self.second.count:
            return Difference(None, -inf, inf, 1.0)
        mean = self.second.mean - self.first.mean
        variance = self._variance()
        if variance <= 0.0 or not self._mixed:
            return Difference(mean, -inf, inf, 1.0)
        total = variance + self._mixed
        spread = 2 * log(1 / (1 - CONFIDENCE)) + log(total / variance)
        reach = sqrt(variance * total / self._mixed * spread)
        return Difference(mean, mean - reach, mean + reach, self._chance)
