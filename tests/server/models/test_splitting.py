"""Splits: exact shares, and keys that stay."""

import math
import random

import pytest

from trivet.server.models.splitting import Split

KEYS = [f"user-{number}" for number in range(100_000)]


def split(*weights: int, salt: str = "model") -> Split[int]:
    return Split(range(len(weights)), weights, salt)


@pytest.mark.parametrize("weights", [(9900, 100), (9500, 500), (5000, 5000), (7000, 2000, 1000)])
def test_keys_are_shared_out_within_three_deviations_of_the_binomial(
    weights: tuple[int, ...],
) -> None:
    chosen = [split(*weights).choose(key) for key in KEYS]

    for arm, weight in enumerate(weights):
        share = weight / sum(weights)
        deviation = math.sqrt(len(KEYS) * share * (1 - share))
        assert abs(chosen.count(arm) - len(KEYS) * share) <= 3 * deviation


def test_an_arm_that_grows_takes_keys_and_nobody_else_does() -> None:
    steps = [100, 500, 2500, 5000, 10_000]
    before = [split(10_000, 3000, 0).choose(key) for key in KEYS[:20_000]]

    for weight in steps:
        now = [split(10_000, 3000, weight).choose(key) for key in KEYS[:20_000]]
        moved = {(old, new) for old, new in zip(before, now, strict=True) if old != new}
        assert moved <= {(0, 2), (1, 2)}, "keys went elsewhere"
        assert moved, "no key came to the arm that grew"
        before = now


def test_an_arm_that_is_added_at_the_end_takes_keys_and_nobody_else_does() -> None:
    before = [split(7000, 3000).choose(key) for key in KEYS[:20_000]]
    now = [split(7000, 3000, 1000).choose(key) for key in KEYS[:20_000]]

    assert {new for old, new in zip(before, now, strict=True) if old != new} == {2}


def test_an_arm_that_goes_gives_its_keys_alone() -> None:
    before = [split(6000, 3000, 1000).choose(key) for key in KEYS[:20_000]]
    now = [split(6000, 3000, 0).choose(key) for key in KEYS[:20_000]]

    assert all(old == 2 for old, new in zip(before, now, strict=True) if old != new)


def test_a_key_has_the_same_arm_everywhere_and_always() -> None:
    # Written down once: other values here mean that an update moves clients between versions.
    chosen = "".join(str(split(5000, 5000).choose(key)) for key in KEYS[:32])

    assert chosen == "11011001100111010000110101110010"


def test_numbers_stick_too_and_models_are_independent() -> None:
    numbers = range(1, 10_001)
    one = [split(5000, 5000).choose(number) for number in numbers]
    other = [split(5000, 5000, salt="other").choose(number) for number in numbers]

    alike = sum(a == b for a, b in zip(one, other, strict=True))
    assert abs(alike - 5000) <= 3 * 50
    assert one == [split(5000, 5000).choose(number) for number in numbers]


@pytest.mark.parametrize("seed", range(8))
def test_without_keys_each_arm_is_within_one_request_of_its_share(seed: int) -> None:
    chance = random.Random(seed)
    weights = [chance.randint(0, 100) for _ in range(chance.randint(2, 8))] + [1]
    shares, total = split(*weights), sum(weights)
    counts = [0] * len(weights)

    for number in range(1, 2001):
        counts[shares.choose("")] += 1
        lacks = [
            number * weight / total - count for weight, count in zip(weights, counts, strict=True)
        ]
        assert max(map(abs, lacks)) <= 1


def test_all_to_one() -> None:
    assert {split(0, 10_000).choose(key) for key in ["", "a", "b", ""]} == {1}
