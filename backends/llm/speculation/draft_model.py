"""Guesses of a smaller model, which computes over the same blocks in a cache of its own."""

from collections.abc import Sequence as Row
from dataclasses import dataclass
from itertools import compress

import torch
from torch import Tensor

from trivet.backends.llm.device.border import brought, listed
from trivet.backends.llm.sampling.draws import Wishes, draw_likely, draw_plain, wish_arrays
from trivet.backends.llm.sampling.sampler import RowState
from trivet.backends.llm.scheduling.batch_state import BatchState
from trivet.backends.llm.scheduling.plan import PlannedRow, StepPlan
from trivet.backends.llm.scheduling.sequence import Sequence
from trivet.backends.llm.steps.runner import TorchRunner


@dataclass(frozen=True, slots=True)
class _Filled:
    """What of a sequence lies in the cache."""

    num_known: int
    """Of its tokens."""
    guesses: list[int]
    """Behind those; whether they became its tokens, only those tell."""
    num_set_back: int
    """How often it had been preempted when that was so."""

    def still(self, token_ids: list[int]) -> int:
        """How many of these it holds."""
        found = self.num_known
        for guess, token in zip(self.guesses, token_ids[found:], strict=False):
            if guess != token:
                break
            found += 1
        return found


class DraftModel:
    """A Drafter. Its tokens are drawn as the larger model's are, with the number of their place: so
    both choose the same one more often than by chance of their own."""

    def __init__(
        self, runner: TorchRunner, state: BatchState, most_tokens: int, vocabulary_size: int
    ) -> None:
        """`state`: the engine's, whose blocks it fills in its own cache. `most_tokens`: of a
        step. `vocabulary_size`: its own."""
        self._runner = runner
        self._state = state
        self._most_tokens = most_tokens
        self._vocabulary_size = vocabulary_size
        self._filled: dict[str, _Filled] = {}
        """By sequence."""

    def draft(self, sequences: Row[Sequence], rows: Row[RowState], /) -> None:
        """See Drafter."""
        for sequence in sequences:
            sequence.draft_ids.clear()
        known = [self._knows_words_of(sequence) for sequence in sequences]
        if not all(known):
            sequences, rows = list(compress(sequences, known)), list(compress(rows, known))
        if not sequences:
            return
        # Two are what one lacks whose guesses were all right.
        most = max(self._most_tokens // len(sequences), 2)
        starts = [self._catch_up(sequence, most) for sequence in sequences]
        plan = [
            PlannedRow(sequence, start, len(sequence.token_ids) - start, samples=True)
            for sequence, start in zip(sequences, starts, strict=True)
        ]
        kept = list(rows)
        while plan:
            tokens = self._chosen(self._logits(plan), plan, kept)
            for (sequence, start, count, _), token in zip(plan, tokens, strict=True):
                if sequence.draft_ids:
                    self._filled[sequence.id].guesses.append(sequence.draft_ids[-1])
                else:
                    self._note(sequence, start + count)
                sequence.draft_ids.append(token)
            behind = [
                (PlannedRow(sequence, start + count, 1, samples=True), row)
                for (sequence, start, count, _), row in zip(plan, kept, strict=True)
                if len(sequence.draft_ids) < sequence.draft_room
            ]
            plan, kept = [each for each, _ in behind], [row for _, row in behind]

    def forget(self, sequence: Sequence) -> None:
        """See Drafter."""
        self._filled.pop(sequence.id, None)

    def _knows_words_of(self, sequence: Sequence) -> bool:
        """Whether it knows all tokens: an adapter may bring some of its own."""
        filled = self._filled.get(sequence.id)
        start = 0 if filled is None else filled.num_known
        return max(sequence.token_ids[start:], default=0) < self._vocabulary_size

    def _catch_up(self, sequence: Sequence, most: int) -> int:
        """Computes what is known but for a last part, of `most` tokens, whose start it returns: a
        prompt, and the last guess where all were right."""
        token_ids, filled = sequence.token_ids, self._filled.get(sequence.id)
        if filled is None:
            start = sequence.num_cached
        elif filled.num_set_back != sequence.num_preemptions:
            start = 0  # its blocks are others
        else:
            start = filled.still(token_ids)
        start = min(start, len(token_ids) - 1)
        while (num_missing := len(token_ids) - start) > most:
            count = min(num_missing - 1, self._most_tokens)
            row = PlannedRow(sequence, start, count, samples=False)
            self._runner.run(self._state.arrays(StepPlan.of([row])), [])
            start += count
            self._note(sequence, start)
        return start

    def _note(self, sequence: Sequence, num_known: int) -> None:
        self._filled[sequence.id] = _Filled(num_known, [], sequence.num_preemptions)

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
