"""Summaries: quantiles of the last minute, within one percent."""

import math
import random

import pytest

from trivet.server.metrics.summary import AGE_S, NUM_AGES, Summary


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_quantiles_are_within_one_percent_of_the_sorted_values() -> None:
    made = random.Random(5)
    values = sorted(made.lognormvariate(13, 2) for _ in range(5000))
    summary = Summary()
    for value in made.sample(values, len(values)):
        summary.observe(value)
    for share in (0.5, 0.9, 0.99, 0.999):
        (found,) = summary.quantiles([share])
        assert found == pytest.approx(values[math.ceil(share * len(values)) - 1], rel=0.0101)
    assert summary.total == pytest.approx(sum(values))


def test_values_leave_the_window_and_counts_stay() -> None:
    clock = Clock()
    summary = Summary(clock)
    summary.observe(1000)
    clock.now_s += AGE_S * (NUM_AGES - 1)
    summary.observe(1_000_000)
    assert summary.quantiles([0.5])[0] == pytest.approx(1000, rel=0.01)
    clock.now_s += AGE_S
    assert summary.quantiles([0.5])[0] == pytest.approx(1_000_000, rel=0.01)
    clock.now_s += 1e6
    assert math.isnan(summary.quantiles([0.5])[0])
    assert (summary.count, summary.total) == (2, 1_001_000)


def test_zero_is_a_value() -> None:
    summary = Summary()
    summary.observe(0)
    assert summary.quantiles([0.5, 0.99]) == [0.0, 0.0]
