"""A roll-out's states, with a fake clock."""

from dataclasses import replace

import pytest

from trivet.backends.api import InvalidRequest
from trivet.server.rollouts.evidence import Counted
from trivet.server.rollouts.guards import guard_of
from trivet.server.rollouts.machine import Phase, Rollout, Window
from trivet.server.rollouts.policy import Policy

POLICY = Policy(
    steps=(1000, 10_000),
    bake_s=10.0,
    min_samples=20,
    max_step_s=60.0,
    guards=(guard_of("errors", 0),),
)
BAD = Window(30, {"errors": (Counted(30, 30), Counted(270, 0))})


def begun() -> Rollout:
    rollout = Rollout(POLICY, 1, 2)
    rollout.begin()
    return rollout


def well(requests: int) -> Window:
    return Window(requests, {"errors": (Counted(requests), Counted(9 * requests))})


def test_before_it_begins_it_gets_nothing_and_no_time_goes_by() -> None:
    rollout = Rollout(POLICY, 1, 2)
    rollout.look(2.0, well(100))

    assert (rollout.phase, rollout.weight, rollout.elapsed_s) == (Phase.WAITING, 0, 0.0)


def test_a_step_ends_when_it_has_baked_and_has_its_samples() -> None:
    rollout = begun()
    for _ in range(5):
        rollout.look(2.0, well(3))
    assert rollout.weight == 1000

    rollout.look(1.0, well(5))
    assert (rollout.weight, rollout.elapsed_s, rollout.samples) == (10_000, 0.0, 0)
    for _ in range(5):
        rollout.look(2.0, well(4))
    assert rollout.phase is Phase.PROMOTED


def test_a_step_without_its_samples_goes_back() -> None:
    rollout = begun()
    for _ in range(30):
        rollout.look(2.0, Window(0, {}))

    assert rollout.phase is Phase.ROLLED_BACK
    assert rollout.reason == ("the step of 10 % got 0 of the 20 samples that it needs within 60 s")


def test_worse_is_back_within_one_look_also_while_it_is_paused() -> None:
    for pauses in (False, True):
        rollout = begun()
        if pauses:
            rollout.pause()
        rollout.look(0.25, BAD)

        assert rollout.phase is Phase.ROLLED_BACK
        assert rollout.weight == 0
        assert rollout.reason == (
            "errors: 30 of 30 (100 %) of the candidate's requests against 0 of 270 (0 %) of the "
            "stable version's"
        )


@pytest.mark.parametrize("jump_s", [-3600.0, 0.0, 86_400.0])
def test_a_clock_that_jumps_bakes_nothing(jump_s: float) -> None:
    rollout = begun()
    rollout.look(jump_s, well(100))

    assert rollout.weight == 1000
    assert 0.0 <= rollout.elapsed_s <= 2.0


def test_paused_it_stays_where_it_is() -> None:
    rollout = begun()
    rollout.pause()
    for _ in range(100):
        rollout.look(2.0, well(100))
    assert (rollout.phase, rollout.weight) == (Phase.PAUSED, 1000)

    rollout.resume()
    assert rollout.phase is Phase.RUNNING


def test_it_goes_on_from_what_was_saved() -> None:
    first, second = begun(), begun()
    for _ in range(4):
        first.look(2.0, well(10))
    second.restore(first.saved())

    assert second.saved() == first.saved()
    for each in (first, second):
        each.look(2.0, BAD)
        assert each.phase is Phase.ROLLED_BACK


def test_a_verdict_is_the_last_word() -> None:
    rollout = begun()
    rollout.fail("its instances stopped")
    rollout.look(2.0, well(1000))

    assert (rollout.phase, rollout.reason) == (Phase.ROLLED_BACK, "its instances stopped")
    with pytest.raises(InvalidRequest, match="has ended, it was rolled back"):
        rollout.resume()
    with pytest.raises(InvalidRequest, match="cannot be promoted"):
        rollout.promote("by somebody")


def test_what_does_not_serve_yet_is_not_promoted() -> None:
    with pytest.raises(InvalidRequest, match="version 2 does not serve yet"):
        Rollout(POLICY, 1, 2).promote("by somebody")


def test_a_shadow_whose_answers_differ_is_back() -> None:
    rollout = Rollout(replace(POLICY, guards=(guard_of("differences", 0.05),)), 1, 2)
    rollout.begin()
    for _ in range(10):
        rollout.look(0.5, Window(0, {"differences": (Counted(50, 2), Counted())}))
    assert not rollout.is_ended

    for _ in range(10):
        rollout.look(0.5, Window(0, {"differences": (Counted(50, 15), Counted())}))
    assert rollout.reason.endswith(" of the candidate's requests differ, and 5 % may")
