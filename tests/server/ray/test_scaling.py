"""How many replicas a queue asks for."""

from types import SimpleNamespace

import pytest

from trivet.server.ray.scaling import decide, wanted_replicas


@pytest.mark.parametrize(
    ("current", "waiting", "wanted"),
    [
        (1, [0.0], 1),
        (1, [8.0], 1),
        (1, [9.0], 2),
        (1, [40.0], 5),
        (2, [20.0, 0.0], 3),
        (4, [3.0, 3.0, 3.0, 3.0], 4 - 1),
        (4, [4.0, 4.0, 4.0, 4.0], 4),
        (2, [0.0, 0.0], 1),
    ],
)
def test_replicas_follow_what_waits(current: int, waiting: list[float], wanted: int) -> None:
    assert decide(current, waiting, is_active=True, queue=8) == wanted


def test_the_last_replica_goes_only_when_nobody_asks() -> None:
    assert decide(1, [0.0], is_active=True, queue=8) == 1
    assert decide(1, [0.0], is_active=False, queue=8) == 0


def test_nothing_is_decided_before_a_replica_has_told() -> None:
    assert decide(3, [], is_active=False, queue=8) == 3


def test_who_is_let_go_is_not_called_back_at_once() -> None:
    for current in range(2, 20):
        waiting = 8 * (current - 1) / 2
        fewer = decide(current, [waiting] + [0.0] * (current - 1), is_active=True, queue=8)
        assert fewer == current - 1
        assert decide(fewer, [waiting] + [0.0] * (fewer - 1), is_active=True, queue=8) <= fewer


def test_serve_tells_by_replica() -> None:
    told = {"waiting": {"a": 30.0, "b": 2.0}, "active": {"a": 1.0, "b": 0.0}}
    config = SimpleNamespace(target_ongoing_requests=8.0)
    context = SimpleNamespace(current_num_replicas=2, aggregated_metrics=told, config=config)

    assert wanted_replicas(context) == (4.0, {})
