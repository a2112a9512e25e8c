"""What a run needs, worked out once for each set of wanted outputs. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from trivet.backends.api import Residence
from trivet.backends.api.request import ON_HOST
from trivet.ensembles.graph import Edge, Graph, Step
from trivet.ensembles.residence import Residences, residences


@dataclass(frozen=True, slots=True)
class Level:
    """The steps of one wave: those that come through equally many decoupled steps."""

    steps: Mapping[int, Step]
    waiting: Mapping[int, int]
    """How many tensors of this wave, and outcomes of earlier makers, each step waits for."""
    first: tuple[Step, ...]
    """Those that wait for nothing."""
    consumers: Mapping[str, tuple[Step, ...]]
    """Who waits for a tensor of this wave."""
    makers: Mapping[str, int]
    """How many steps of this wave may make a tensor, where there are several."""
    later: Mapping[int, tuple[Step, ...]]
    """Who waits for a step's outcome: later makers of the same tensors."""
    output_names: Mapping[int, tuple[str, ...]]
    """What to ask of each step's model; () is everything."""
    uses: Mapping[str, int]
    """How many steps of this wave take a tensor which may be let go of afterwards."""
    decoupled: Step | None
    """The step whose responses begin further waves."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run for some outputs."""

    levels: tuple[Level, ...]
    outputs: tuple[Edge, ...]
    kept: frozenset[str]
    """The tensors that a step takes, a condition asks about or the ensemble answers."""
    residences: Residences
    is_chain: bool
    """One step after another, none beside another: nothing is left to cancel when one fails."""


def make_plan(
    graph: Graph, output_names: tuple[str, ...], wanted: Mapping[str, Residence] = ON_HOST
) -> Plan:
    """The plan for some outputs; () is all of them. `wanted`: where they are wanted."""
    needed = graph.needed_for(output_names)
    steps = [step for step in graph.steps if step.number in needed]
    outputs = tuple(
        edge for name, edge in graph.outputs.items() if not output_names or name in output_names
    )
    kept = {edge.tensor for edge in outputs}
    kept |= {name for s in steps if s.return_if for name in s.return_if.tensors}
    top = max(step.level + step.signature.decoupled for step in steps)
    levels = tuple(
        _level(graph, [s for s in steps if s.level == number], kept, top)
        for number in range(top + 1)
    )
    kept.update(*(step.needs for step in steps))
    found = residences(steps, outputs, wanted)
    return Plan(levels, outputs, frozenset(kept), found, _is_chain(steps))


def _level(graph: Graph, steps: list[Step], kept: set[str], top: int) -> Level:
    decoupled = next((step for step in steps if step.signature.decoupled), None)
    own = {step.number for step in steps if step is not decoupled}
    makers = {
        tensor: len(found)
        for tensor, all_makers in graph.makers.items()
        if (found := [maker for maker in all_makers if maker in own])
    }
    waiting = {
        step.number: sum(name in makers for name in step.needs)
        + sum(other in own for other in step.earlier)
        for step in steps
    }
    consumers = {name: tuple(step for step in steps if name in step.needs) for name in makers}
    later = {
        maker: tuple(step for step in steps if maker in step.earlier)
        for maker in own
        if any(maker in step.earlier for step in steps)
    }
    return Level(
        {step.number: step for step in steps},
        waiting,
        tuple(step for step in steps if waiting[step.number] == 0),
        consumers,
        {name: count for name, count in makers.items() if count > 1},
        later,
        {step.number: _asked(step) for step in steps},
        _uses(steps, kept) if top == 0 else {},
        decoupled,
    )


def _asked(step: Step) -> tuple[str, ...]:
    names = tuple(edge.name for edge in step.outputs)
    return () if len(names) == len(step.signature.outputs) else names


def _uses(steps: list[Step], kept: set[str]) -> dict[str, int]:
    uses: dict[str, int] = {}
    for step in steps:
        for name in step.needs - kept:
            uses[name] = uses.get(name, 0) + 1
    return uses


def _is_chain(steps: list[Step]) -> bool:
    """Whether each step needs what the one before it makes; a `map` is many steps at once."""
    made: frozenset[str] = frozenset()
    left = list(steps)
    while left:
        ready = [step for step in left if not step.needs & _made(left)]
        if len(ready) != 1 or ready[0].settings.map or (made and not ready[0].needs & made):
            return False
        made = _made(ready)
        left.remove(ready[0])
    return not any(step.return_if or step.earlier for step in steps)


def _made(steps: list[Step]) -> frozenset[str]:
    return frozenset(edge.tensor for step in steps for edge in step.outputs)
