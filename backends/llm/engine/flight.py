"""Steps that are under way on the device while the next is planned. Knows no model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from trivet.backends.llm.engine.generation import Generation
from trivet.backends.llm.engine.outbox import BegunStep
from trivet.backends.llm.sampling.draws import Draws, wish_arrays
from trivet.backends.llm.scheduling.batch_state import BatchState, StepArrays
from trivet.backends.llm.scheduling.plan import StepPlan


class StepRunner(Protocol):
    """Computes a step."""

    def run(self, arrays: StepArrays, rows: list[int]) -> Tensor:
        """Logits, float32 [len(rows), vocabulary], of the step's tokens at these places."""


class Launcher(Protocol):
    """Starts steps, which the device computes one after the other."""

    def launch(self, arrays: StepArrays, rows: list[int], draws: Draws) -> Callable[[], list[int]]:
        """Returns at once; what it returns waits for the tokens, one for each of `rows`.

        A token id below 0 in `arrays` stands for the last token of the sequence that keeps it at
        -1 - id, which this step or an earlier one puts there.
        """


class StageRunner(Protocol):
    """Begins steps of a model in stages, which computes one in each."""

    def begin(self, arrays: StepArrays, rows: list[int]) -> Callable[[], Tensor]:
        """Returns before the step is computed; what it returns waits for its logits, see
        StepRunner. They are asked for in the order in which steps are begun."""


class Runs(StepRunner, Launcher, Protocol):
    """Does both."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A step under way."""

    plan: StepPlan
    generations: list[Generation | None]
    """Of the plan's rows that sample."""
    tokens: Callable[[], list[int]]
    step: BegunStep

    def forget(self, generation: Generation) -> None:
        """What the step makes of a request is not wanted."""
        self.generations[:] = [None if each is generation else each for each in self.generations]


def needs_host(generation: Generation) -> bool:
    """Whether its steps cannot be launched before the last one's tokens are known."""
    return generation.row.needs_host or generation.sequence.needs_prompt_logprobs


def draws_of(generations: list[Generation | None], plan: StepPlan, state: BatchState) -> Draws:
    """How the tokens of a plan's sampling rows are drawn."""
    sequences = [row.sequence for row in plan.rows if row.samples]
    state_rows = np.array([state.row_of(sequence) for sequence in sequences], dtype=np.int64)
    rows = [generation.row if generation else None for generation in generations]
    plain = [i for i, row in enumerate(rows) if row and not (row.is_greedy or row.is_filtered)]
    likely = [i for i, row in enumerate(rows) if row and row.is_filtered and not row.is_greedy]
    wishes: list[np.ndarray] = []
    if plain or likely:
        # Of greedy rows and rows without a request no one reads these.
        alive = [row or next(filter(None, rows)) for row in rows]
        wishes = wish_arrays(
            [row.sampling for row in alive],
            [row.seed for row in alive],
            [len(sequence.token_ids) - sequence.num_prompt for sequence in sequences],
        )
    places = [np.array(each, dtype=np.int64) for each in (plain, likely)]
    return Draws(state_rows, places[0], places[1], wishes)
