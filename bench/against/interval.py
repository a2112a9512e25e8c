"""How much two series of paired costs differ: the signed-rank interval of their ratios.

Rounds on a shared machine have outliers, which a mean and its deviation would follow; ranks do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import exp, log
from statistics import median

CONFIDENCE = 0.95
MIN_ROUNDS = 6
"""With fewer, even the whole range of what was seen is less sure than `CONFIDENCE`."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a ratio lies, and its likeliest value."""

    low: float
    middle: float
    high: float


def ratio_interval(old: Sequence[float], new: Sequence[float]) -> Interval:
    """Of old / new, round by round: above 1, new costs less. The middle is the Hodges-Lehmann
    estimate, the ends come from Wilcoxon's signed ranks; with fewer than `MIN_ROUNDS` they are the
    range."""
    ratios = [log(before / after) for before, after in zip(old, new, strict=True)]
    means = sorted((one + two) / 2 for one, two in combinations_with_replacement(ratios, 2))
    left_out = num_left_out(len(ratios))
    return Interval(exp(means[left_out]), exp(median(means)), exp(means[-1 - left_out]))


def num_left_out(num_rounds: int) -> int:
    """How many of the sorted means of pairs lie outside the interval at each end."""
    ways = [1]  # by sum: in how many ways ranks 1 to n are positive so that they sum to it
    for rank in range(1, num_rounds + 1):
        without, with_rank = ways + [0] * rank, [0] * rank + ways
        ways = [one + two for one, two in zip(without, with_rank, strict=True)]
    allowed = (1 - CONFIDENCE) / 2 * 2**num_rounds
    cumulated = 0
    for smallest, count in enumerate(ways):
        cumulated += count
        if cumulated > allowed:
            return max(smallest - 1, 0)
    return 0
