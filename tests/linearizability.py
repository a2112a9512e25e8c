"""Whether what concurrent clients saw has an order: a checker of linearizability.

A history is linearizable if each operation can be given one moment between its call and its return
so that, in the order of these moments, every result is the one that a sequential specification
gives (M. Herlihy, J. Wing: Linearizability, 1990). The search is that of J. Wing and C. Gong
(Testing and verifying concurrent objects, 1993): try each operation that may come next, go back
where none fits; with G. Lowe's memory (Testing for linearizability, 2017) of the pairs of what was
done and the state after it that were tried. Objects that have nothing to do with each other are
checked one by one (Herlihy and Wing's locality; A. Horn and D. Kroening: Faster linearizability
checking via P-compositionality, 2015).
"""

from bisect import bisect_left
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

Event = TypeVar("Event")
Event_contra = TypeVar("Event_contra", contravariant=True)
State = TypeVar("State", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Operation(Generic[Event]):
    """What a client did and was told. Times are of one clock, whatever its unit."""

    client: str
    event: Event
    """The operation with its result."""
    called: int
    returned: int | None
    """None: nobody was told, so it may have taken effect at any time since, or never."""


class Specification(Protocol[State, Event_contra]):
    """The object, used by one client."""

    @property
    def initial(self) -> State: ...

    def after(self, state: State, event: Event_contra) -> State | None:
        """The state after an operation; None where it cannot have had this result."""

    def is_question(self, event: Event_contra) -> bool:
        """Whether it leaves every state as it is."""


@dataclass(frozen=True, slots=True)
class Refutation(Generic[State, Event]):
    """A history without an order: cut at the first return that spoils it, and without the
    questions that are not needed to spoil it."""

    history: tuple[Operation[Event], ...]
    longest: tuple[Operation[Event], ...]
    """The longest order that is right as far as it goes."""
    state: State
    """The state after that, in which nothing that may come next can have had its result."""

    def __str__(self) -> str:
        start = min(each.called for each in self.history)
        done = {id(each) for each in self.longest}
        lines = ["no order explains these operations (called, returned, client, what):"]
        for each in sorted(self.history, key=lambda each: each.called):
            end = "?" if each.returned is None else each.returned - start
            mark = " " if id(each) in done else "*"
            lines.append(
                f"{mark} {each.called - start:>10} {end:>10} {each.client:>4} {each.event}"
            )
        lines.append("the longest order that is right as far as it goes, without those marked *:")
        lines += [f"  {each.client:>4} {each.event}" for each in self.longest]
        lines.append(f"after which the state is {self.state}")
        return "\n".join(lines)


def refute(
    history: Sequence[Operation[Event]], specification: Specification[State, Event]
) -> Refutation[State, Event] | None:
    """None for a history that is linearizable, otherwise the smallest part of it that is not."""
    if _search(history, specification) is None:
        return None
    smallest = _without_needless_questions(_shortest(history, specification), specification)
    stuck = _search(smallest, specification)
    assert stuck is not None
    return Refutation(tuple(smallest), tuple(stuck.path()), stuck.state)


def _shortest(
    history: Sequence[Operation[Event]], specification: Specification[State, Event]
) -> list[Operation[Event]]:
    """The history up to the first return by which it has no order. What has an order has one up to
    any moment, so the moment can be found by halving."""
    moments = sorted({each.returned for each in history if each.returned is not None})
    first = bisect_left(
        moments,
        True,
        key=lambda moment: _search(_until(history, moment), specification) is not None,
    )
    return _until(history, moments[first])


def _until(history: Sequence[Operation[Event]], moment: int) -> list[Operation[Event]]:
    """What was called by then; what had not returned is pending."""
    return [
        each
        if each.returned is not None and each.returned <= moment
        else replace(each, returned=None)
        for each in history
        if each.called <= moment
    ]


def _without_needless_questions(
    history: list[Operation[Event]], specification: Specification[State, Event]
) -> list[Operation[Event]]:
    """Leaving out a question never spoils a history, so what is left is refuted by itself."""
    for each in [each for each in history if specification.is_question(each.event)]:
        fewer = [other for other in history if other is not each]
        if _search(fewer, specification) is not None:
            history = fewer
    return history


@dataclass(frozen=True, slots=True)
class _Node(Generic[State, Event]):
    """A beginning of an order."""

    done: int
    """A bit for each operation in it."""
    state: State
    last: Operation[Event] | None = None
    before: "_Node[State, Event] | None" = None

    def path(self) -> list[Operation[Event]]:
        found, node = [], self
        while node.last is not None and node.before is not None:
            found.append(node.last)
            node = node.before
        return found[::-1]


def _search(
    history: Sequence[Operation[Event]], specification: Specification[State, Event]
) -> _Node[State, Event] | None:
    """None if there is an order, otherwise the longest beginning of one."""
    return _Search(history, specification).run()


class _Search(Generic[State, Event]):
    """Depth first over the orders of one history."""

    def __init__(
        self, history: Sequence[Operation[Event]], specification: Specification[State, Event]
    ) -> None:
        self._specification = specification
        is_question = specification.is_question
        # A question that nobody was answered says nothing.
        self._operations = sorted(
            (each for each in history if each.returned is not None or not is_question(each.event)),
            key=lambda each: each.called,
        )
        self._required = sum(
            1 << index for index, each in enumerate(self._operations) if each.returned is not None
        )

    def run(self) -> _Node[State, Event] | None:
        first: _Node[State, Event] = _Node(0, self._specification.initial)
        pending, tried, longest = [first], set(), first
        while pending:
            node = self._with_questions(pending.pop())
            if not self._required & ~node.done:
                return None
            if (node.done, node.state) in tried:
                continue
            tried.add((node.done, node.state))
            if node.done.bit_count() > longest.done.bit_count():
                longest = node
            pending += self._next(node, of_questions=False)
        return longest

    def _with_questions(self, node: _Node[State, Event]) -> _Node[State, Event]:
        """With all questions whose answer is right now: none is needed later, since any order in
        which it comes later is one without it there."""
        while (answered := next(self._next(node, of_questions=True), None)) is not None:
            node = answered
        return node

    def _next(
        self, node: _Node[State, Event], *, of_questions: bool
    ) -> Iterator[_Node[State, Event]]:
        """The beginnings that are longer by one."""
        for index in self._may_come_next(node.done):
            operation = self._operations[index]
            if self._specification.is_question(operation.event) is of_questions:
                state = self._specification.after(node.state, operation.event)
                if state is not None:
                    yield _Node(node.done | 1 << index, state, operation, node)

    def _may_come_next(self, done: int) -> list[int]:
        """Operations that were called before every other one that is left had returned."""
        found: list[int] = []
        first_return: int | None = None
        for index, each in enumerate(self._operations):
            if done >> index & 1:
                continue
            if first_return is not None and each.called > first_return:
                break
            found.append(index)
            if each.returned is not None and (first_return is None or each.returned < first_return):
                first_return = each.returned
        return found
