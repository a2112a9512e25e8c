"""The cell of the LLM engine's step: both commits' engines, each in a process of its own."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from bench.against.checkout import Side
from bench.against.comparison import Cost
from bench.against.rounds import Cells
from bench.llm_step import steps_of
from bench.processes import run_module


class EnginePart:
    """A process a measurement: it imports the commit's engine, and its one thread is busy with
    steps only."""

    def __init__(self, seconds: float) -> None:
        self._num_steps = steps_of(seconds)

    @contextmanager
    def open(self, sides: Iterable[Side]) -> Iterator[Cells]:
        """Nothing runs between measurements."""
        yield {"llm-step": {side.name: partial(self._measure, side) for side in sides}}

    def _measure(self, side: Side) -> Cost:
        figures = run_module("bench.against.engine_step", str(self._num_steps), root=side.root)
        return Cost(figures["step_cpu_ms"] * 1e3, 1e3 / figures["step_ms"])
