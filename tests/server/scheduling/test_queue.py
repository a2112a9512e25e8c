"""Queue order, limits and time-outs, without threads or clocks."""

import tracemalloc
from typing import Any

import pytest

from trivet.backends.api import Cancelled, CheckedRequest, DeadlineExceeded, QueueFull, QueueTimeout
from trivet.protos.model_config_pb2 import ModelDynamicBatching, ModelQueuePolicy
from trivet.server.scheduling.queue import LevelPolicy, QueuePolicy, RequestQueue
from trivet.server.scheduling.ticket import Ticket


def ticket(name: str = "", *, arrived_ns: int = 0, **fields: Any) -> Ticket:
    request = CheckedRequest("m", 1, name, {}, **fields)
    return Ticket(request, None, arrived_ns)  # type: ignore[arg-type] # no sink is looked at


def names(queue: RequestQueue) -> list[str]:
    return [waiting.request.id for waiting in queue]


def queue_of(**policy: object) -> RequestQueue:
    return RequestQueue(QueuePolicy({0: LevelPolicy(**policy)}))  # type: ignore[arg-type] # test maker


def test_requests_are_served_in_arrival_order() -> None:
    queue = queue_of()
    for name in "abc":
        queue.push(ticket(name))
    assert [taken.request.id for taken in queue.pop(2)] == ["a", "b"]
    assert names(queue) == ["c"]


def test_chosen_requests_leave_and_the_others_keep_their_order() -> None:
    queue = RequestQueue(QueuePolicy({1: LevelPolicy(), 2: LevelPolicy()}, default_level=2))
    by_name = {name: ticket(name, priority=2 - name.isupper()) for name in "aAbBcCd"}
    for each in by_name.values():
        queue.push(each)
    taken = queue.take([by_name[name] for name in "cBb"])
    assert [each.request.id for each in taken] == ["B", "b", "c"]
    assert names(queue) == ["A", "C", "a", "d"]
    assert len(queue) == 4


def test_to_take_requests_near_the_head_looks_at_no_others() -> None:
    class Looked(Ticket):
        num_looks = 0

        def __hash__(self) -> int:
            Looked.num_looks += 1
            return id(self)

    queue = queue_of()
    request = CheckedRequest("m", 1, "", {})
    tickets = [Looked(request, None, 0) for _ in range(1000)]  # type: ignore[arg-type] # no sink
    for each in tickets:
        queue.push(each)
    queue.take([tickets[3], tickets[7]])
    assert Looked.num_looks <= 2 + 8
    assert len(queue) == 998


def test_a_higher_level_is_served_first_and_unknown_priorities_are_the_default() -> None:
    queue = RequestQueue(QueuePolicy({1: LevelPolicy(), 2: LevelPolicy()}, default_level=2))
    for name, priority in (("default", 0), ("low", 2), ("high", 1), ("unknown", 9)):
        queue.push(ticket(name, priority=priority))
    assert names(queue) == ["high", "default", "low", "unknown"]


def test_a_full_level_refuses_with_the_text_clients_look_for() -> None:
    queue = queue_of(max_size=1)
    queue.push(ticket())
    with pytest.raises(QueueFull, match=r"^\[request id: r1\] Exceeds maximum queue size$"):
        queue.push(ticket("r1"))


def test_an_expired_request_is_refused() -> None:
    queue = queue_of(timeout_ns=1000)
    queue.push(ticket("old"))
    queue.push(ticket("new", arrived_ns=500))
    (refused,) = queue.sweep(1000)
    assert isinstance(refused.error, QueueTimeout)
    assert refused.error.message == "[request id: old] Request timeout expired"
    assert names(queue) == ["new"]
    assert queue.next_expiry_ns() == 1500


def test_an_expired_request_can_be_put_behind_the_others_instead() -> None:
    queue = queue_of(timeout_ns=1000, delays_expired=True)
    queue.push(ticket("old"))
    queue.push(ticket("new", arrived_ns=500))
    assert queue.sweep(1000) == []
    assert names(queue) == ["new", "old"]
    assert len(queue) == 2
    queue.push(ticket("newer", arrived_ns=1000))
    assert names(queue) == ["new", "newer", "old"]


@pytest.mark.parametrize(
    ("default_us", "allowed", "own_us", "expires_us"),
    [
        (100, True, 50, 50),
        (100, True, 200, 100),
        (100, False, 50, 100),
        (0, True, 50, 50),
        (0, False, 50, 0),
        (0, True, 0, 0),
    ],
)
def test_a_request_may_shorten_its_wait_where_the_policy_allows(
    *, default_us: int, allowed: bool, own_us: int, expires_us: int
) -> None:
    queue = queue_of(timeout_ns=default_us * 1000, allows_override=allowed)
    queue.push(ticket(timeout_us=own_us))
    assert queue.next_expiry_ns() == expires_us * 1000


def test_cancelled_and_late_requests_leave_the_queue() -> None:
    queue = queue_of()
    gone, late, stays = ticket("gone"), ticket("late", deadline=1e-6), ticket("stays")
    for each in (gone, late, stays):
        queue.push(each)
    gone.request.cancel.cancel()
    refused = queue.sweep(1001)
    assert [type(each.error) for each in refused] == [Cancelled, DeadlineExceeded]
    assert names(queue) == ["stays"]
    assert len(queue) == 1


def test_the_policy_of_a_config_is_read_per_level() -> None:
    batching = ModelDynamicBatching(
        priority_levels=2,
        default_priority_level=2,
        default_queue_policy=ModelQueuePolicy(max_queue_size=5, default_timeout_microseconds=7),
        priority_queue_policy={1: ModelQueuePolicy(timeout_action=ModelQueuePolicy.DELAY)},
    )
    policy = QueuePolicy.from_config(batching, default_max_size=9)
    assert policy.policy_of(1) == LevelPolicy(max_size=9, delays_expired=True)
    assert policy.policy_of(2) == LevelPolicy(max_size=5, timeout_ns=7000)
    assert policy.level_of(0) == policy.level_of(3) == 2


@pytest.mark.more_of("R25")
def test_as_many_levels_as_a_config_can_name_cost_nothing_before_they_are_used() -> None:
    most = 2**64 - 1
    batching = ModelDynamicBatching(priority_levels=most, default_priority_level=2**32)
    tracemalloc.start()
    try:
        queue = RequestQueue(QueuePolicy.from_config(batching, default_max_size=0))
        for number in range(1000):
            for priority in (most, 0, 1, most - number - 1):
                queue.push(ticket(f"{priority}", priority=priority))
            assert names(queue) == ["1", "0", f"{most - number - 1}", f"{most}"]
            assert len(queue.pop(4)) == 4
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_waiting_requests_keep_their_places_when_unused_levels_go() -> None:
    batching = ModelDynamicBatching(priority_levels=10_000, default_priority_level=5)
    queue = RequestQueue(QueuePolicy.from_config(batching, default_max_size=0))
    for priority in range(1000, 0, -1):
        queue.push(ticket(f"{priority}", priority=priority))
        if priority % 2:
            assert [each.request.id for each in queue.pop(1)] == [f"{priority}"]
    assert names(queue) == [f"{priority}" for priority in range(2, 1001, 2)]
