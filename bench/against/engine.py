"""The cell of the LLM engine's step: both commits' engines, each in a process of its own."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from bench.against.checkout import Side
from bench.against.comparison import Cost
from bench.against.rounds import Cells
from bench.against.turns import Program, run_in_turns
from bench.llm_step import steps_of


class EnginePart:
    """A process a measurement: it imports the commit's engine, and its one thread is busy with
    steps only."""

    def __init__(self, seconds: float) -> None:
        self._num_steps = steps_of(seconds)

    @contextmanager
    def open(self, sides: Iterable[Side]) -> Iterator[Cells]:
        """Nothing runs between measurements."""
        yield {"llm-step": partial(self._measure, list(sides))}

    def _measure(self, sides: list[Side]) -> Mapping[str, Cost]:
        command = ["bench.against.engine_step", str(self._num_steps)]
        programs = {side.name: Program(command, side.root) for side in sides}
        return {
            side: Cost(figures["step_cpu_ms"] * 1e3, len(sides) * 1e3 / figures["step_ms"])
            for side, figures in run_in_turns(programs).items()
        }
