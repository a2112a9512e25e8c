"""A step is computed as far as it can be: what fails costs as few sequences as possible."""

import logging
from collections.abc import Callable, Iterable

import torch

from trivet.backends.api import BackendFailed, ServingError
from trivet.backends.llm.device.devices import DEVICE_LOST, free_memory, no_memory
from trivet.backends.llm.engine.outbox import BegunStep
from trivet.backends.llm.scheduling.plan import PlannedRow, StepPlan
from trivet.backends.llm.scheduling.sequence import Sequence
from trivet.backends.llm.steps.runner import RowFailedError

log = logging.getLogger(__name__)
FAILED = "the model failed while computing; the server log has the details"
Compute = Callable[[StepPlan, BegunStep], None]
Fail = Callable[[Iterable[Sequence], ServingError], None]
TakeBack = Callable[[Iterable[Sequence]], None]
"""Sequences are computed anew from their first token."""


class Attempts:
    """Owned by the engine's thread."""

    def __init__(
        self, compute: Compute, fail: Fail, take_back: TakeBack, *, keeps_states: bool
    ) -> None:
        """`keeps_states`: where a step has failed, sequences may be ahead of what is recorded."""
        self._compute = compute
        self._fail = fail
        self._take_back = take_back
        self._keeps_states = keeps_states

    def compute(self, plan: StepPlan, step: BegunStep) -> None:
        """All of a step; where memory does not suffice in halves, once, or in smaller steps."""
        try:
            self._try(plan, step)
        except (torch.OutOfMemoryError, RowFailedError) as error:
            _tell(error)
            free_memory()
            if plan.has_drafts:  # without them the step may fit as it is
                self.compute(plan.without_drafts(), step)
                return
            row = error.row if isinstance(error, RowFailedError) else None
            if self._keeps_states or row is not None:
                self._in_smaller_steps(plan, step, row)
            else:
                self._in_halves(plan, step)

    def _try(self, plan: StepPlan, step: BegunStep) -> None:
        """Raises what says that memory does not suffice."""
        try:
            self._compute(plan, step)
        except DEVICE_LOST:
            # Nothing more can be computed in this process; another is started in its place.
            log.exception("the device failed")
            raise
        except torch.OutOfMemoryError:
            raise
        except RowFailedError as error:
            if error.is_of_memory:
                raise
            log.exception("a sequence of a step failed")
            step.has_failed = True
            failed = plan.rows[error.row].sequence
            self._fail([failed], BackendFailed(FAILED))
            if self._keeps_states:
                self._take_back(row.sequence for row in plan.rows if row.sequence is not failed)
            # What keeps no states is offered by the next plan again.
        except Exception:
            # The batch is lost, the engine is not: its caches hold only what was published.
            log.exception("a step failed")
            step.has_failed = True
            self._fail([row.sequence for row in plan.rows], BackendFailed(FAILED))

    def _in_halves(self, plan: StepPlan, step: BegunStep) -> None:
        for half in plan.halves():
            part = half.alive()
            if part.rows:
                try:
                    self._try(part, step)
                except (torch.OutOfMemoryError, RowFailedError) as error:
                    _tell(error)
                    self._fail_for_memory(part.rows, step)
        if plan.num_tokens == 1:
            self._fail_for_memory(plan.rows, step)

    def _in_smaller_steps(self, plan: StepPlan, step: BegunStep, row: int | None) -> None:
        """The next plan offers them again, with half as many tokens at a time where that was too
        many; sequences whose states have gone ahead begin anew, and one that fails with a single
        token ends. `row`: which one's part did not fit; None where that is not known."""
        rows = plan.rows if row is None else (plan.rows[row],)
        larger = [each for each in rows if each.count > 1]
        for each in larger:
            each.sequence.max_chunk = each.count // 2
        if not larger:
            self._fail_for_memory(rows[-1:], step)
        if self._keeps_states:
            self._take_back(each.sequence for each in plan.rows)

    def _fail_for_memory(self, rows: tuple[PlannedRow, ...], step: BegunStep) -> None:
        step.has_failed = True
        num_tokens = sum(row.count for row in rows)
        self._fail([row.sequence for row in rows], no_memory(len(rows), num_tokens))


def _tell(error: Exception) -> None:
    log.error("out of memory in a step: %s", str(error).splitlines()[0])
