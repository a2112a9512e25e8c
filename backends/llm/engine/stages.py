"""Steps of a model in stages: as many under way as there are stages, of other sequences each, so
that all of them compute."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from trivet.backends.llm.engine.flight import StageRunner
from trivet.backends.llm.engine.generation import Generation, logits_rows
from trivet.backends.llm.engine.outbox import BegunStep, Outbox
from trivet.backends.llm.scheduling.batch_state import BatchState
from trivet.backends.llm.scheduling.plan import StepPlan
from trivet.backends.llm.scheduling.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class StagedFlight:
    """A step under way."""

    plan: StepPlan
    generations: list[Generation | None]
    """Of the plan's rows that sample."""
    logits: Callable[[], Tensor]
    step: BegunStep


Settle = Callable[[StagedFlight, Tensor], None]
"""Chooses the tokens that follow from a step's logits, has them recorded, and tells them."""


class StagedSteps:
    """Owned by the engine's thread. Whatever fails here ends the engine: other ranks may be in
    another step by then, and all of them start again."""

    def __init__(
        self,
        runner: StageRunner,
        num_stages: int,
        scheduler: Scheduler,
        state: BatchState,
        outbox: Outbox,
        settle: Settle,
    ) -> None:
        self._runner = runner
        self._num_stages = num_stages
        self._scheduler = scheduler
        self._state = state
        self._outbox = outbox
        self._settle = settle
        self._flights: deque[StagedFlight] = deque()

    @property
    def has_any(self) -> bool:
        """Whether a step is under way."""
        return bool(self._flights)

    def advance(self, step: BegunStep, generations: list[Generation | None]) -> None:
        """Begins a step, if its plan has any rows; lands the oldest once there are as many as
        stages, or where nothing can be begun. `generations`: of the rows that sample."""
        plan = step.plan
        if plan.rows:
            logits = self._runner.begin(self._state.arrays(plan), logits_rows(plan))
            self._scheduler.launch(plan)
            self._flights.append(StagedFlight(plan, generations, logits, step))
        if plan.preempted:
            # What was set back may begin anew in the next step, and must not be under way then.
            self.land_all()
        elif len(self._flights) >= self._num_stages or not plan.rows:
            self._land()

    def land_all(self) -> None:
        """Nothing is under way afterwards."""
        while self._flights:
            self._land()
            # A message has at most one output of each request, for it has no order.
            self._outbox.flush()

    def _land(self) -> None:
        if self._flights:
            flight = self._flights.popleft()
            begun_s = time.monotonic()
            logits = flight.logits()
            flight.step.end_forward(begun_s)
            self._settle(flight, logits)
            self._outbox.end_step(flight.step)
