"""How many tokens are guessed: as many as are worth their time."""

import itertools
from collections.abc import Sequence as Row

import pytest

from trivet.backends.llm.sampling.sampler import RowState
from trivet.backends.llm.scheduling.plan import PlannedRow, StepPlan
from trivet.backends.llm.scheduling.sequence import Sequence
from trivet.backends.llm.speculation.costs import StepCosts
from trivet.backends.llm.speculation.speculation import Speculation

MOST = 8


def test_costs_are_those_of_the_steps_that_were_seen() -> None:
    costs = StepCosts()
    assert costs.of_step(4) == costs.of_token() == 0
    costs.note(1, 0.017)
    assert costs.of_token() == pytest.approx(0.001), "until two sizes were seen"
    for tokens in (1, 4, 2, 8, 1, 6):
        costs.note(tokens, 0.010 + 0.002 * tokens)
    for tokens in itertools.islice(itertools.cycle((1, 5)), 600):
        costs.note(tokens, 0.020 + 0.001 * tokens)
    assert costs.of_token() == pytest.approx(0.001, rel=0.01)
    assert costs.of_step(1) == pytest.approx(0.021, rel=0.01)


class Drafter:
    """Guesses as much as there is room for."""

    def draft(self, sequences: Row[Sequence], _rows: Row[RowState], /) -> None:
        for sequence in sequences:
            sequence.draft_ids[:] = [1] * sequence.draft_room

    def forget(self, sequence: Sequence) -> None:
        """Nothing to forget."""


def guesses_per_step(
    *,
    share_right: float,
    fixed_s: float,
    each_s: float,
    running: int,
    steps: int = 400,
    once_s: float = 0.0,
) -> float:
    """The mean of a sequence's guesses over the last steps of many. `once_s`: what guessing seems
    to take at first."""
    speculation = Speculation(Drafter(), MOST)
    speculation._drafting_s = once_s
    sequences = [Sequence(str(i), [1], 10_000) for i in range(running)]
    row = RowState.__new__(RowState)  # nobody looks at it
    luck = 0.0
    counts = []
    for _ in range(steps):
        for sequence in sequences:
            sequence.draft_ids.clear()
            sequence.draft_room = speculation.wanted(sequence)
        plan = StepPlan.of(PlannedRow(each, 0, 1, samples=True) for each in sequences)
        plan = speculation.guess(plan, lambda _: row)
        speculation.note_step(fixed_s + each_s * plan.num_tokens)
        for sequence in sequences:
            num_right = 0
            while num_right < len(sequence.draft_ids):
                luck += share_right
                if luck < 1:
                    break
                luck -= 1
                num_right += 1
            if sequence.draft_ids:
                speculation.note(sequence, len(sequence.draft_ids), num_right)
            counts.append(len(sequence.draft_ids))
    last = counts[len(counts) // 2 :]
    return sum(last) / len(last)


def test_guesses_that_are_right_become_as_many_as_may_be() -> None:
    assert guesses_per_step(share_right=1, fixed_s=0.01, each_s=0.0005, running=1) == MOST


def test_guessing_that_was_slow_once_is_tried_again() -> None:
    pace = guesses_per_step(
        share_right=1, fixed_s=0.01, each_s=0.0005, running=1, steps=1500, once_s=0.1
    )
    assert pace > MOST - 1


def test_what_is_never_right_is_hardly_tried() -> None:
    assert guesses_per_step(share_right=0, fixed_s=0.01, each_s=0.001, running=1) < 0.15


def test_where_a_token_costs_as_much_as_it_would_alone_nothing_is_guessed() -> None:
    assert guesses_per_step(share_right=0.7, fixed_s=0.0, each_s=0.01, running=4) < 0.3


def test_full_batches_guess_less_than_lone_sequences() -> None:
    alone, many = (
        guesses_per_step(share_right=0.7, fixed_s=0.01, each_s=0.001, running=running, steps=steps)
        for running, steps in ((1, 400), (32, 60))
    )
    assert many < alone


def test_a_new_sequence_is_given_less_credit_where_others_had_no_luck() -> None:
    speculation = Speculation(Drafter(), MOST)
    speculation.guess(StepPlan.of([PlannedRow(Sequence("0", [1], 9), 0, 1, samples=True)]), row_of)
    speculation.note_step(0.01)
    first, other = Sequence("1", [1], 10_000), Sequence("2", [1], 10_000)
    before = speculation.wanted(first)
    for _ in range(8):
        speculation.note(first, 2, 0)
    assert 1 <= speculation.wanted(other) < before


def row_of(_: Sequence) -> RowState:
    """Nobody looks at it."""
    return RowState.__new__(RowState)
