"""Rates, quotas and tokens of a key, with time as the test says."""

import pytest
from auth_site import Clock

from trivet.server.auth.errors import RateLimited
from trivet.server.auth.limits import DAY_S, Allowance, Limits


@pytest.fixture
def clock() -> Clock:
    return Clock()


def num_admitted(allowance: Allowance, num_asked: int) -> int:
    """How many of so many requests at once may come."""
    admitted = 0
    for _ in range(num_asked):
        try:
            allowance.take_request()
        except RateLimited:
            continue
        admitted += 1
    return admitted


def test_as_many_come_at_once_as_the_burst_allows_and_then_at_the_rate(clock: Clock) -> None:
    limits = Limits(requests_per_second=2, requests_burst=5)
    allowance = Allowance("k", limits, clock)
    assert num_admitted(allowance, 20) == 5
    clock.now_s += 1.0
    assert num_admitted(allowance, 20) == 2
    clock.now_s += 3600
    assert num_admitted(allowance, 20) == 5


def test_less_than_one_request_per_second_is_possible(clock: Clock) -> None:
    allowance = Allowance("k", Limits(requests_per_second=0.1), clock)
    assert num_admitted(allowance, 3) == 1
    clock.now_s += 9.9
    assert num_admitted(allowance, 3) == 0
    clock.now_s += 0.2
    assert num_admitted(allowance, 3) == 1


def test_a_refusal_says_which_limit_and_how_long_to_wait(clock: Clock) -> None:
    allowance = Allowance("mobile", Limits(requests_per_second=0.5), clock)
    allowance.take_request()
    with pytest.raises(RateLimited) as caught:
        allowance.take_request()
    assert caught.value.message == (
        "key 'mobile' has reached its limit of 0.5 requests per second; try again in 2s, or have "
        "the limit raised in the server's keys file"
    )
    assert caught.value.retry_after_s == pytest.approx(2.0)


def test_a_day_ends_a_day_after_its_first_request(clock: Clock) -> None:
    allowance = Allowance("k", Limits(requests_per_day=3), clock)
    clock.now_s += 5 * DAY_S
    assert num_admitted(allowance, 10) == 3
    clock.now_s += DAY_S - 1
    assert num_admitted(allowance, 10) == 0
    clock.now_s += 1
    assert num_admitted(allowance, 10) == 3


def test_a_request_that_the_rate_refuses_is_not_taken_from_the_day(clock: Clock) -> None:
    allowance = Allowance("k", Limits(requests_per_second=1, requests_per_day=3), clock)
    assert num_admitted(allowance, 100) == 1
    clock.now_s += 1
    assert num_admitted(allowance, 100) == 1
    clock.now_s += 1
    assert num_admitted(allowance, 100) == 1
    clock.now_s += 1
    assert num_admitted(allowance, 100) == 0


def test_a_long_answer_overdraws_and_is_paid_off_before_the_next(clock: Clock) -> None:
    allowance = Allowance("k", Limits(tokens_per_minute=600), clock)
    allowance.require_tokens()
    allowance.charge_tokens(1200)
    with pytest.raises(RateLimited, match="600 tokens per minute; try again in 1m1s") as caught:
        allowance.require_tokens()
    assert caught.value.kind == "tokens"
    clock.now_s += 60
    with pytest.raises(RateLimited):
        allowance.require_tokens()
    clock.now_s += 0.2
    allowance.require_tokens()


def test_what_is_left_is_told_under_openais_names(clock: Clock) -> None:
    limits = Limits(requests_per_second=10, requests_per_day=5, tokens_per_minute=60)
    allowance = Allowance("k", limits, clock)
    allowance.take_request()
    allowance.charge_tokens(90)
    assert allowance.headers() == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "24h0m0s",
        "x-ratelimit-limit-tokens": "60",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m30s",
    }


def test_without_limits_nothing_is_told(clock: Clock) -> None:
    allowance = Allowance("k", Limits(), clock)
    assert num_admitted(allowance, 1000) == 1000
    assert allowance.headers() == {}
