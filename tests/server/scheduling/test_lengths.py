"""Requests of like lengths go together, within a budget, the oldest one always."""

from hypothesis import given
from hypothesis import strategies as st

from trivet.backends.api import CheckedRequest
from trivet.server.scheduling.lengths import LengthPolicy
from trivet.server.scheduling.policy import Run, RunThese, WaitUntil
from trivet.server.scheduling.queue import LevelPolicy, QueuePolicy, RequestQueue
from trivet.server.scheduling.ticket import Ticket


class NoSink:
    """A ticket needs a sink; no decision looks at it."""


def ticket(length: int, *, rows: int = 1, level: int = 0, key: str = "") -> Ticket:
    request = CheckedRequest("m", 1, str(length), {}, batch_size=rows)
    made = Ticket(request, NoSink(), 0, level=level, join_key=key)  # type: ignore[arg-type] # not used
    made.length = length
    return made


def chosen(tickets: list[Ticket], budget: int = 100, most: int = 32) -> list[int]:
    decision = LengthPolicy(budget, most).decide(tickets, now_ns=0)
    assert isinstance(decision, RunThese)
    return [each.length for each in decision.tickets]


def test_the_oldest_goes_with_those_that_are_nearest_to_it() -> None:
    waiting = [ticket(each) for each in (20, 90, 22, 5, 19, 88, 25, 24)]

    assert chosen(waiting) == [20, 19, 22, 24]


def test_long_requests_go_few_at_a_time_and_short_ones_many() -> None:
    assert len(chosen([ticket(50) for _ in range(9)])) == 2
    assert len(chosen([ticket(4) for _ in range(64)], most=64)) == 25
    assert len(chosen([ticket(4) for _ in range(64)], most=8)) == 8


def test_one_that_is_over_the_budget_goes_alone() -> None:
    assert chosen([ticket(500), ticket(490)]) == [500]
    assert LengthPolicy(100, 8).decide([ticket(500)], now_ns=0) == Run(1)


def test_rows_of_a_request_count() -> None:
    assert chosen([ticket(10, rows=6), ticket(10, rows=3), ticket(10, rows=2)]) == [10, 10]


def test_another_priority_only_fills_what_is_left() -> None:
    waiting = [ticket(30, level=1), ticket(10, level=1), ticket(30, level=2), ticket(29, level=2)]

    assert chosen(waiting, budget=90) == [30, 10, 30]


def test_other_inputs_are_not_joined() -> None:
    assert chosen([ticket(10, key="text"), ticket(10, key="pair"), ticket(11, key="text")]) == [
        10,
        11,
    ]


def test_with_a_delay_a_batch_that_could_grow_waits() -> None:
    policy = LengthPolicy(100, 8, max_delay_ns=50)

    assert policy.decide([ticket(10)], now_ns=20) == WaitUntil(50)
    assert isinstance(policy.decide([ticket(10)], now_ns=50), RunThese)
    assert isinstance(policy.decide([ticket(60), ticket(60)], now_ns=20), RunThese)


@given(st.lists(st.integers(1, 256), min_size=2, max_size=80), st.integers(1, 2000))
def test_the_budget_is_kept_and_nobody_is_passed_over_for_ever(
    lengths: list[int], budget: int
) -> None:
    queue = RequestQueue(QueuePolicy({0: LevelPolicy()}))
    for length in lengths:
        queue.push(ticket(length))
    policy, seen = LengthPolicy(budget, 32), 0

    while len(queue):
        oldest = next(iter(queue))
        taken = policy.decide(queue, now_ns=0).take_from(queue)  # type: ignore[union-attr] # no delay
        assert oldest in taken
        longest = max(each.length for each in taken)
        assert len(taken) == 1 or len(taken) * longest <= budget
        seen += len(taken)
    assert seen == len(lengths)


def test_what_cannot_grow_does_not_wait() -> None:
    """A full batch, and one beside which more stand in the line than are looked at."""
    policy = LengthPolicy(10**6, 8, max_delay_ns=1000)
    assert isinstance(policy.decide([ticket(4) for _ in range(7)], now_ns=0), WaitUntil)
    assert isinstance(policy.decide([ticket(4) for _ in range(8)], now_ns=0), RunThese)
    wide = LengthPolicy(10**6, 512, max_delay_ns=1000)
    assert isinstance(wide.decide([ticket(4) for _ in range(300)], now_ns=0), RunThese)
