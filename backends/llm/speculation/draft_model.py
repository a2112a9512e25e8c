"""Guesses of a smaller model, which computes over the same blocks in a cache of its own."""

from collections.abc import Sequence as Row

import torch
from torch import Tensor

from trivet.backends.llm.device.border import brought, listed
from trivet.backends.llm.sampling.draws import Wishes, draw_likely, draw_plain, wish_arrays
from trivet.backends.llm.sampling.sampler import RowState
from trivet.backends.llm.scheduling.batch_state import BatchState
from trivet.backends.llm.scheduling.plan import PlannedRow, StepPlan
from trivet.backends.llm.scheduling.sequence import Sequence
from trivet.backends.llm.steps.runner import TorchRunner


class DraftModel:
    """A Drafter. Its tokens are drawn as the larger model's are, with the number of their place: so
    both choose the same one more often than by chance of their own."""

    def __init__(self, runner: TorchRunner, state: BatchState, most_tokens: int) -> None:
        """`state`: the engine's, whose blocks it fills in its own cache. `most_tokens`: of a
        step."""
        self._runner = runner
        self._state = state
        self._most_tokens = most_tokens
        self._computed: dict[str, tuple[int, int]] = {}
        """By sequence: how many of its tokens lie in the cache, and how often it had been set back
        when that was so."""

    def draft(self, sequences: Row[Sequence], rows: Row[RowState], /) -> None:
        """See Drafter."""
        for sequence in sequences:
            sequence.draft_ids.clear()
        starts = [self._catch_up(sequence) for sequence in sequences]
        plan = [
            PlannedRow(sequence, start, len(sequence.token_ids) - start, samples=True)
            for sequence, start in zip(sequences, starts, strict=True)
        ]
        kept = list(rows)
        while plan:
            tokens = self._chosen(self._logits(plan), plan, kept)
            for (sequence, start, count, _), token in zip(plan, tokens, strict=True):
                sequence.draft_ids.append(token)
                self._note(sequence, start + count)
            behind = [
                (PlannedRow(sequence, start + count, 1, samples=True), row)
                for (sequence, start, count, _), row in zip(plan, kept, strict=True)
                if len(sequence.draft_ids) < sequence.draft_room
            ]
            plan, kept = [each for each, _ in behind], [row for _, row in behind]

    def forget(self, sequence: Sequence) -> None:
        """See Drafter."""
        self._computed.pop(sequence.id, None)

    def _catch_up(self, sequence: Sequence) -> int:
        """Computes what is known but for a last part, whose start it returns: a prompt, and the
        last guess where all were right."""
        start, num_set_back = self._computed.get(sequence.id, (sequence.num_cached, 0))
        if num_set_back != sequence.num_preemptions:
            start = 0  # its blocks are others
        start = min(start, len(sequence.token_ids) - 1)
        while len(sequence.token_ids) - start > self._most_tokens:
            row = PlannedRow(sequence, start, self._most_tokens, samples=False)
            self._runner.run(self._state.arrays(StepPlan.of([row])), [])
            start += self._most_tokens
            self._note(sequence, start)
        return start

    def _note(self, sequence: Sequence, num_computed: int) -> None:
        self._computed[sequence.id] = num_computed, sequence.num_preemptions

    def _logits(self, rows: list[PlannedRow]) -> Tensor:
        plan = StepPlan.of(rows)
        ends: list[int] = []
        for row in rows:
            ends.append((ends[-1] if ends else -1) + row.count)
        return self._runner.run(self._state.arrays(plan), ends)

    @staticmethod
    def _chosen(logits: Tensor, plan: list[PlannedRow], rows: list[RowState]) -> list[int]:
        tokens = logits.argmax(dim=-1)
        drawn = [index for index, row in enumerate(rows) if not row.is_greedy]
        for is_filtered in (False, True):
            group = [index for index in drawn if rows[index].is_filtered == is_filtered]
            if not group:
                continue
            some = [rows[index] for index in group]
            places = [len(plan[i].sequence.draft_ids) + len(rows[i].output_ids) for i in group]
            arrays = wish_arrays([row.sampling for row in some], [row.seed for row in some], places)
            wishes = Wishes(*(brought(torch.from_numpy(a), logits.device) for a in arrays))
            part = logits[group]
            tokens[group] = (
                draw_likely(part, wishes)[0] if is_filtered else draw_plain(part, wishes)
            )
        return [int(token) for token in listed(tokens)]
