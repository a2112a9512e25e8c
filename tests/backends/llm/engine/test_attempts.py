"""What becomes of a step that does not fit into memory."""

from collections.abc import Iterable

import torch

from trivet.backends.api import ServingError
from trivet.backends.llm.engine.attempts import Attempts
from trivet.backends.llm.engine.outbox import BegunStep
from trivet.backends.llm.scheduling.plan import PlannedRow, StepPlan
from trivet.backends.llm.scheduling.sequence import Sequence, SequenceStatus


def test_a_step_that_does_not_fit_with_guesses_is_computed_without() -> None:
    sequence = Sequence("0", [1, 2, 3], 10)
    sequence.status = SequenceStatus.RUNNING
    sequence.draft_ids[:] = [4, 5]
    computed: list[int] = []
    failed: list[Sequence] = []

    def compute(plan: StepPlan, _step: BegunStep) -> None:
        if plan.num_tokens > 1:
            raise torch.OutOfMemoryError("full")
        computed.extend(row.count for row in plan.rows)

    def fail(sequences: Iterable[Sequence], _error: ServingError) -> None:
        failed.extend(sequences)

    attempts = Attempts(compute, fail, failed.extend, keeps_states=False)
    plan = StepPlan.of([PlannedRow(sequence, 2, 1, samples=True)]).with_drafts()
    attempts.compute(plan, BegunStep(plan, 0, 0.0))
    assert (computed, failed, sequence.draft_ids) == ([1], [], [])
