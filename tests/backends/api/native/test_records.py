"""What is made and counted in C is what Python makes and counts."""

import gc
import sys
import weakref
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.backends.api.native.records import _tally, quickened, tally
from trivet.backends.api.value import record, value


def plain() -> Any:
    """A class, anew each time."""

    class Plain:
        name: str
        number: int = 7
        kept: list[int] = field(default_factory=list)
        later: object = field(init=False)
        state: str = field(default="new", init=False)

    return dataclass(slots=True)(Plain)


def made(*arguments: Any, **named: Any) -> list[Any]:
    """The fields by the two ways, which agree, or the error that both raise."""
    outcomes: list[list[Any]] = []
    for kind in (plain(), quickened(plain())):
        try:
            thing = kind(*arguments, **named)
        except TypeError as error:
            outcomes.append([str(error)])
        else:
            fields = ("name", "number", "kept", "later", "state")
            outcomes.append([getattr(thing, each, "not there") for each in fields])
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


def test_fields_come_by_place_by_name_and_by_default() -> None:
    assert made("a") == ["a", 7, [], "not there", "new"]
    assert made("a", 1, [2]) == ["a", 1, [2], "not there", "new"]
    assert made(number=1, name="a") == ["a", 1, [], "not there", "new"]
    assert made("a", kept=[3]) == ["a", 7, [3], "not there", "new"]
    assert made("a", **{"num" + "ber": 5}) == ["a", 5, [], "not there", "new"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), {}),
        (("a", 1, [], 4), {}),
        (("a",), {"name": "b"}),
        (("a",), {"unknown": 1}),
        (("a",), {"state": "old"}),
        ((), {"number": 1}),
    ],
)
def test_what_does_not_fit_is_told_as_python_tells_it(
    arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    (text,) = made(*arguments, **named)
    assert "__init__()" in text


def test_a_default_that_fails_fails() -> None:
    def fail() -> int:
        raise ValueError("no")

    @record
    class Failing:
        first: object
        made: int = field(default_factory=fail)

    with pytest.raises(ValueError, match="no"):
        Failing([])


def test_subclasses_are_made_by_their_own_init() -> None:
    @value
    class Base:
        name: str

    class More(Base):
        __slots__ = ("length",)

        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.length = len(name)

    more = More("abc")
    assert (more.name, more.length) == ("abc", 3)


def test_what_is_made_is_collected_and_holds_nothing_longer() -> None:
    @quickened
    @dataclass(slots=True, eq=False, weakref_slot=True)
    class Node:
        other: Any = None

    held = object()
    before = sys.getrefcount(held)
    for _ in range(10):
        Node(held)
        Node(other=held)
    assert sys.getrefcount(held) == before
    node = Node()
    node.other = Node(node)
    seen = weakref.ref(node)
    del node
    gc.collect()
    assert seen() is None


def test_classes_that_do_more_than_set_fields_are_refused() -> None:
    @dataclass(slots=True)
    class Doing:
        name: str

        def __post_init__(self) -> None:
            self.name = self.name.upper()

    with pytest.raises(TypeError, match="more than set fields"):
        quickened(Doing)


bounds = st.lists(st.integers(-100, 2**62), min_size=1, max_size=20, unique=True).map(sorted)


@pytest.mark.parametrize("count_in", [tally, _tally])
@given(bounds, st.lists(st.integers(-200, 2**62), max_size=40))
def test_values_are_counted_where_bisect_would_count_them(
    count_in: Any, limits: list[int], values: list[int]
) -> None:
    counts = [0] * (len(limits) + 1)
    values = [each // max(1, len(values)) for each in values]
    assert count_in(counts, tuple(limits), values) == sum(values)
    expected = [0] * (len(limits) + 1)
    for each in values:
        expected[bisect_left(limits, each)] += 1
    assert counts == expected
