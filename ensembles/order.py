"""The order of an ensemble's steps: no circles, and decoupled steps one after another. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from trivet.backends.api import InvalidConfig
from trivet.ensembles.graph import Edge, Step

Makers = Mapping[str, Sequence[int]]

MAX_TOLD_STEPS = 16
"""Of a circle, in an error."""


def order_steps(
    needs: Sequence[frozenset[str]], makers: Makers, titles: Sequence[str], where: str
) -> list[int]:
    """Step numbers, each after those whose tensors it needs. Raises InvalidConfig for a circle."""
    waits_for = [
        {number for tensor in tensors for number in makers.get(tensor, ())} for tensors in needs
    ]
    for numbers in makers.values():
        for later in numbers:
            waits_for[later] |= {number for number in numbers if number < later}
    order: list[int] = []
    left = set(range(len(needs)))
    while left:
        ready = sorted(number for number in left if not waits_for[number] & left)
        if not ready:
            raise InvalidConfig(f"{where}: {_circle(waits_for, left, makers, needs, titles)}")
        order += ready
        left -= set(ready)
    return order


def _circle(
    waits_for: Sequence[set[int]],
    left: set[int],
    makers: Makers,
    needs: Sequence[frozenset[str]],
    titles: Sequence[str],
) -> str:
    path: list[int] = []
    number = min(left)
    while number not in path:
        path.append(number)
        number = min(waits_for[number] & left)
    circle = [*path[path.index(number) :], number]
    links = []
    for later, earlier in pairwise(circle):
        tensors = sorted(t for t in needs[later] if earlier in makers.get(t, ()))
        links.append(f"{titles[later]} needs {tensors or 'the outcome'} of {titles[earlier]}")
    if len(links) > MAX_TOLD_STEPS:
        links[MAX_TOLD_STEPS:] = [f"and so on, {len(links)} steps in all"]
    return f"the steps form a cycle: {', '.join(links)}"


def steps_before(number: int, outputs: Iterable[str], makers: Makers) -> tuple[int, ...]:
    """The steps that come first where several make the same tensor."""
    others = {other for tensor in outputs for other in makers[tensor] if other < number}
    return tuple(sorted(others))


def check_levels(
    steps: Sequence[Step],
    makers: Makers,
    order: Sequence[int],
    outputs: Mapping[str, Edge],
    where: str,
) -> tuple[Step, ...]:
    """The steps with their levels: each response of a decoupled step begins a new wave of the
    steps after it.

    Raises InvalidConfig where responses of two decoupled steps meet, since nothing says which of
    them belong together.
    """
    through: dict[int, frozenset[int]] = {}

    def sources(tensors: Iterable[str], title: str) -> frozenset[int]:
        found: frozenset[int] = frozenset()
        for tensor in sorted(tensors):
            for number in makers.get(tensor, ()):
                own = {number} if steps[number].signature.decoupled else set()
                found |= through[number] | own
        _check_chain(found, steps, through, title, where)
        return found

    for number in order:
        step = steps[number]
        found = sources(step.needs, step.title)
        for other in step.earlier:
            found |= through[other]
        through[number] = found
    sources((edge.tensor for edge in outputs.values()), "the ensemble")
    decoupled = [step for step in steps if step.signature.decoupled]
    for step in decoupled:
        peers = [
            each for each in decoupled if len(through[each.number]) == len(through[step.number])
        ]
        if len(peers) > 1:
            _refuse(peers[0], peers[1], "the ensemble", where)
    return tuple(replace(step, level=len(through[step.number])) for step in steps)


def _check_chain(
    found: frozenset[int],
    steps: Sequence[Step],
    through: Mapping[int, frozenset[int]],
    title: str,
    where: str,
) -> None:
    for one in found:
        for other in found:
            if one < other and one not in through[other] and other not in through[one]:
                _refuse(steps[one], steps[other], title, where)


def _refuse(one: Step, other: Step, title: str, where: str) -> None:
    raise InvalidConfig(
        f"{where}: {title} gets responses of two decoupled steps, {one.title} and {other.title}, "
        "of which neither comes after the other: nothing says which responses belong together"
    )
