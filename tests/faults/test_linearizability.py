"""The judge of histories is right itself: it finds an order where there is one, and only there."""

from dataclasses import dataclass
from itertools import chain, combinations, permutations
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linearizability import Operation, refute
from repository_specification import (
    Answered,
    Event,
    Listed,
    Load,
    Refusal,
    Refused,
    Repository,
    Unloaded,
    WasReady,
    events_of,
)

ONE = Load(1, "ONE", frozenset({1}))
AGAIN = Load(2, "AGAIN", frozenset({1}))
BOTH = Load(3, "BOTH", frozenset({1, 2}))
TWO = Load(4, "TWO", frozenset({2}))
WRONG = Load(5, "WRONG", frozenset())
NOT_FOUND = Refused(None, Refusal.NOT_FOUND)
COMING = Refused(None, Refusal.COMING)
Call = tuple[int, int | None, Load | Event]
"""When it was called and returned, and what it was."""


def history(*calls: Call) -> list[Operation[Event]]:
    return [
        Operation(f"c{number}", event, called, returned)
        for number, (called, returned, what) in enumerate(calls)
        for event in (events_of(what) if isinstance(what, Load) else (what,))
    ]


RIGHT: dict[str, tuple[Call, ...]] = {
    "nothing": (),
    "in turn": (
        (0, 1, Refused(None, Refusal.WRONG)),
        (2, 3, ONE),
        (4, 5, Answered(None, 1, "ONE")),
        (6, 7, Listed(ready=frozenset({1}))),
        (8, 9, Unloaded()),
        (10, 11, NOT_FOUND),
        (12, 13, Listed()),
    ),
    "before and after a reload": (
        (0, 1, ONE),
        (2, 9, AGAIN),
        (3, 4, Answered(None, 1, "ONE")),
        (5, 6, Answered(1, 1, "AGAIN")),
        (7, 8, Answered(1, 1, "AGAIN")),
    ),
    "the half of a load": (
        (0, 9, BOTH),
        (1, 2, COMING),
        (2, 3, Listed(loading=frozenset({1, 2}))),
        (3, 4, Answered(None, 1, "BOTH")),
        (4, 5, Refused(2, Refusal.NOT_FOUND)),
        (5, 6, Listed(ready=frozenset({1}), loading=frozenset({2}))),
        (7, 8, Answered(None, 2, "BOTH")),
    ),
    "the old version beside the new one": (
        (0, 1, ONE),
        (2, 9, TWO),
        (3, 4, Answered(None, 2, "TWO")),
        (5, 6, Answered(1, 1, "ONE")),
        (10, 11, Refused(1, Refusal.NOT_FOUND)),
    ),
    "answered after an unload, accepted before": (
        (0, 1, ONE),
        (2, 9, Answered(None, 1, "ONE")),
        (3, 4, Unloaded()),
        (5, 6, NOT_FOUND),
    ),
    "a wrong load": (
        (0, 1, ONE),
        (2, 3, WRONG),
        (4, 5, Answered(None, 1, "ONE")),
    ),
    "loads that were called the other way around": (
        (0, 8, ONE),
        (1, 9, AGAIN),
        (10, 11, Answered(None, 1, "ONE")),
    ),
    "an abandoned load that happens": (
        (0, None, ONE),
        (1, 2, Unloaded()),
        (3, 4, Answered(None, 1, "ONE")),
    ),
    "an abandoned load that never happens": (
        (0, None, ONE),
        (1, 2, BOTH),
        (3, 4, Unloaded()),
        (5, 6, NOT_FOUND),
    ),
}


@pytest.mark.parametrize("calls", RIGHT.values(), ids=RIGHT)
def test_a_history_of_a_right_repository_has_an_order(calls: tuple[Call, ...]) -> None:
    assert refute(history(*calls), Repository()) is None


WRONG_ONES: dict[str, tuple[Call, ...]] = {
    "an old answer after a load": (
        (0, 1, ONE),
        (2, 3, AGAIN),
        (4, 5, Answered(None, 1, "ONE")),
    ),
    "a lost unload": (
        (0, 1, ONE),
        (2, 3, Unloaded()),
        (4, 5, Answered(None, 1, "ONE")),
    ),
    "a lost load": ((0, 1, ONE), (2, 3, NOT_FOUND)),
    "an answer of what never served": ((0, 1, ONE), (2, 3, Answered(2, 2, "ONE"))),
    "another version than the one asked for": ((0, 1, BOTH), (2, 3, Answered(1, 2, "BOTH"))),
    "not the newest": ((0, 1, BOTH), (2, 3, Answered(None, 1, "BOTH"))),
    "a gap while it is loaded again": ((0, 1, ONE), (2, 9, AGAIN), (3, 4, NOT_FOUND)),
    "the old version gone before the new one is there": (
        (0, 1, ONE),
        (2, 9, TWO),
        (3, 4, Refused(1, Refusal.NOT_FOUND)),
        (5, 6, Listed(ready=frozenset({1}))),
    ),
    "back to the old version": (
        (0, 1, ONE),
        (2, 9, AGAIN),
        (3, 4, Answered(None, 1, "AGAIN")),
        (5, 6, Answered(None, 1, "ONE")),
    ),
    "two loads mixed": (
        (0, 9, BOTH),
        (1, 8, AGAIN),
        (10, 11, Answered(1, 1, "AGAIN")),
        (12, 13, Answered(2, 2, "BOTH")),
    ),
    "a wrong load that changes something": ((0, 1, ONE), (2, 3, WRONG), (4, 5, NOT_FOUND)),
    "coming, but nothing loads": ((0, 1, ONE), (2, 3, Unloaded()), (4, 5, COMING)),
    "loading for good": ((0, 1, ONE), (2, 3, Listed(frozenset({1}), frozenset({2})))),
    "an index that hides what serves": ((0, 1, ONE), (2, 3, Listed())),
    "an index that lists what does not serve": (
        (0, 1, ONE),
        (2, 3, Unloaded()),
        (4, 5, Listed(ready=frozenset({1}))),
    ),
    "ready, but gone": ((0, 1, ONE), (2, 3, Unloaded()), (4, 5, WasReady(None, True))),
    "half an abandoned load": (
        (0, None, BOTH),
        (1, 2, Answered(None, 1, "BOTH")),
        (3, 4, Unloaded()),
        (5, 6, Listed(loading=frozenset({2}))),
    ),
}


@pytest.mark.parametrize("calls", WRONG_ONES.values(), ids=WRONG_ONES)
def test_a_history_of_a_wrong_repository_has_none(calls: tuple[Call, ...]) -> None:
    assert refute(history(*calls), Repository()) is not None


def test_the_report_is_of_no_more_than_what_is_wrong() -> None:
    spoilt = WRONG_ONES["a lost unload"]
    answered = Answered(None, 1, "ONE")
    before: tuple[Call, ...] = ((1, 2, answered), (1, 2, WasReady(1, True)))
    after: tuple[Call, ...] = ((5, 9, answered), (6, 7, AGAIN), (8, 9, NOT_FOUND))
    refutation = refute(history(*spoilt, *before, *after), Repository())
    assert refutation is not None
    events = [each.event for each in refutation.history]
    assert events == [*events_of(ONE), Unloaded(), answered]
    assert [each.event for each in refutation.longest] == [*events_of(ONE), Unloaded()]
    assert "* 4 5 c2 infer newest: ONE of 1" in " ".join(str(refutation).split())


# -- against trying everything ---------------------------------------------------------------------


@dataclass(frozen=True)
class Access:
    """Of one variable: its new value, or the one that was read."""

    kind: Literal["read", "write"]
    value: int


class Variable:
    initial = 0

    def is_question(self, event: Access) -> bool:
        return event.kind == "read"

    def after(self, state: int, event: Access) -> int | None:
        if event.kind == "write":
            return event.value
        return state if state == event.value else None


@st.composite
def accesses(draw: st.DrawFn) -> Operation[Access]:
    event = Access(draw(st.sampled_from(("read", "write"))), draw(st.integers(0, 2)))
    called = draw(st.integers(0, 8))
    returned = draw(st.none() | st.integers(called, called + 4))
    return Operation("c", event, called, returned)


def has_order(history: list[Operation[Access]]) -> bool:
    """By trying each order of what returned with any part of the rest."""
    required = [each for each in history if each.returned is not None]
    perhaps = [each for each in history if each.returned is None]
    parts = chain.from_iterable(combinations(perhaps, n) for n in range(len(perhaps) + 1))
    return any(is_right(order) for part in parts for order in permutations([*required, *part]))


def is_right(order: tuple[Operation[Access], ...]) -> bool:
    for first, second in combinations(order, 2):
        if second.returned is not None and second.returned < first.called:
            return False
    value = Variable.initial
    for each in order:
        after = Variable().after(value, each.event)
        if after is None:
            return False
        value = after
    return True


@settings(max_examples=300, deadline=None)
@given(st.lists(accesses(), max_size=5))
def test_it_says_what_trying_every_order_says(history: list[Operation[Access]]) -> None:
    assert (refute(history, Variable()) is None) is has_order(history)
