"""Outcomes of two arms, looked at after each of them."""

import numpy as np

from trivet.server.rollouts.comparing import LEAST, Comparison, Outcomes


def compared(seed: int, higher: float, count: int = 1500) -> Comparison:
    random = np.random.default_rng(seed)
    first, second = Outcomes(), Outcomes()
    comparison = Comparison(first, second)
    ones, others = random.normal(0.0, 1.0, count), random.normal(higher, 1.0, count)
    for one, other in zip(ones.tolist(), others.tolist(), strict=True):
        first.add(one)
        second.add(other)
        comparison.update()
    return comparison


def test_arms_alike_hardly_ever_differ_however_often_one_looks() -> None:
    found = [compared(seed, 0.0).difference for seed in range(40)]

    assert sum(each.chance < 0.05 for each in found) <= 4
    assert sum(not each.low <= 0.0 <= each.high for each in found) <= 4


def test_a_difference_is_found_and_lies_between_its_bounds() -> None:
    found = compared(7, 0.5).difference

    assert found.chance < 0.001
    assert 0.0 < found.low < 0.5 < found.high


def test_of_a_few_nothing_is_said() -> None:
    found = compared(7, 5.0, LEAST - 1).difference

    assert found.chance == 1.0
    assert found.low == -found.high == -float("inf")


def test_mean_and_variance_are_those_of_all_numbers() -> None:
    outcomes, numbers = Outcomes(), [1.0, 2.0, 4.0, 8.0]
    for number in numbers:
        outcomes.add(number)

    assert outcomes.mean == np.mean(numbers)
    assert np.isclose(outcomes.variance, np.var(numbers, ddof=1))
