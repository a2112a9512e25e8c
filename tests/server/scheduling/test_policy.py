"""The dynamic batcher's decisions, without threads or clocks."""

from hypothesis import given
from hypothesis import strategies as st

from trivet.backends.api import CheckedRequest
from trivet.server.scheduling.policy import BatchPolicy, OneByOne, Run, WaitUntil
from trivet.server.scheduling.ticket import Ticket


class NoSink:
    """A ticket needs a sink; no decision looks at it."""


def tickets(*sizes: int, arrived_ns: int = 0, keys: str = "") -> list[Ticket]:
    return [
        Ticket(
            CheckedRequest("m", 1, str(index), {}, batch_size=size),
            NoSink(),  # type: ignore[arg-type] # not used
            arrived_ns,
            join_key=keys[index] if keys else None,
        )
        for index, size in enumerate(sizes)
    ]


def policy(max_batch_size: int = 8, *preferred: int, delay_ns: int = 0) -> BatchPolicy:
    return BatchPolicy(
        max_batch_size, frozenset(preferred) or frozenset({max_batch_size}), delay_ns
    )


def test_an_idle_instance_gets_a_lone_request_at_once() -> None:
    assert policy().decide(tickets(1), now_ns=0) == Run(1)


def test_waiting_requests_are_taken_up_to_the_maximum() -> None:
    assert policy().decide(tickets(3, 3, 2, 1), now_ns=0) == Run(3)


def test_a_request_is_never_split() -> None:
    assert policy().decide(tickets(5, 5), now_ns=0) == Run(1)


def test_a_request_of_another_shape_ends_the_batch() -> None:
    assert policy().decide(tickets(1, 1, 1, keys="aab"), now_ns=0) == Run(2)


def test_with_a_delay_a_short_queue_waits_from_its_oldest_request() -> None:
    waiting = tickets(1, 1, arrived_ns=100)
    assert policy(8, delay_ns=50).decide(waiting, now_ns=120) == WaitUntil(150)
    assert policy(8, delay_ns=50).decide(waiting, now_ns=150) == Run(2)


def test_a_preferred_size_runs_without_waiting() -> None:
    assert policy(8, 4, delay_ns=50).decide(tickets(1, 1, 2), now_ns=0) == Run(3)


def test_the_largest_preferred_size_that_the_queue_forms_wins() -> None:
    assert policy(8, 2, 4, delay_ns=50).decide(tickets(1, 1, 1, 1, 1), now_ns=0) == Run(4)


def test_a_preferred_size_is_cut_from_a_longer_queue_also_without_a_delay() -> None:
    assert policy(16, 8).decide(tickets(*[1] * 15), now_ns=0) == Run(8)
    assert policy(16, 8).decide(tickets(*[1] * 5), now_ns=0) == Run(5)


def test_once_the_delay_has_passed_everything_goes() -> None:
    assert policy(8, 4, delay_ns=50).decide(tickets(*[1] * 6), now_ns=60) == Run(6)


def test_a_batch_that_cannot_grow_does_not_wait_for_the_delay() -> None:
    assert policy(8, delay_ns=50).decide(tickets(5, 5), now_ns=0) == Run(1)
    assert policy(8, delay_ns=50).decide(tickets(1, 1, keys="ab"), now_ns=0) == Run(1)


def test_without_batching_requests_run_alone() -> None:
    assert OneByOne().decide(tickets(1, 1), now_ns=0) == Run(1)


@given(
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=20),
    preferred=st.sets(st.integers(1, 8)),
    delay_ns=st.integers(0, 100),
    now_ns=st.integers(0, 200),
)
def test_a_run_takes_a_prefix_that_fits_and_a_wait_is_never_in_the_past(
    sizes: list[int], preferred: set[int], delay_ns: int, now_ns: int
) -> None:
    decision = policy(8, *preferred, delay_ns=delay_ns).decide(tickets(*sizes), now_ns)
    if isinstance(decision, Run):
        assert 1 <= decision.count <= len(sizes)
        assert sum(sizes[: decision.count]) <= 8
    else:
        assert now_ns < decision.time_ns <= delay_ns
