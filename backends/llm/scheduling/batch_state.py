"""Block tables of the running sequences in one array, and a step's inputs made from it. No torch.

A sequence keeps its row while it runs, so that a step writes only what has changed and gathers the
rest: at 256 sequences that costs a twentieth of building the arrays anew.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trivet.backends.llm.scheduling.plan import StepPlan
from trivet.backends.llm.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class StepArrays:
    """What the model reads in one step, for N tokens of S rows."""

    token_ids: np.ndarray
    """int64 [N]; below 0: the token that the sequence of row -1 - id chose last, which only the
    device knows yet."""
    positions: np.ndarray
    """int64 [N]."""
    slot_mapping: np.ndarray
    """int64 [N]: where each token's key and value go, block * block size + offset."""
    query_starts: np.ndarray
    """int32 [S + 1]: the rows' first tokens."""
    sequence_lengths: np.ndarray
    """int32 [S]: tokens in the cache after this step."""
    block_tables: np.ndarray
    """int32 [S, most blocks of a row]; what is not used is the null block 0."""
    adapters: np.ndarray | None = None
    """int64 [S]: the slots of the rows' adapters, 0 for the base alone; None: of all."""


class BatchState:
    """Owned by the engine's thread."""

    def __init__(
        self,
        *,
        max_num_seqs: int,
        max_model_len: int,
        block_size: int,
        has_adapters: bool = False,
    ) -> None:
        """`has_adapters`: whether sequences may have some."""
        self._block_size = block_size
        max_blocks = -(-max_model_len // block_size) + 1
        self._tables = np.zeros((max_num_seqs, max_blocks), dtype=np.int32)
        self._num_written = [0] * max_num_seqs
        self._rows: dict[str, int] = {}
        self._has_adapters = has_adapters
        self._free = list(range(max_num_seqs - 1, -1, -1))

    def leave(self, sequence_id: str) -> None:
        """A sequence does not run any more: ended, aborted or preempted."""
        row = self._rows.pop(sequence_id, None)
        if row is not None:
            self._num_written[row] = 0
            self._free.append(row)

    def row_of(self, sequence: Sequence) -> int:
        """The row of a sequence that `arrays` has placed, which it keeps until it leaves."""
        return self._rows[sequence.id]

    def arrays(self, plan: StepPlan) -> StepArrays:
        """The inputs of a step."""
        table_rows = []
        find, num_written = self._rows.get, self._num_written
        for sequence, _, _, _ in plan.rows:
            row = find(sequence.id)
            if row is None or len(sequence.block_ids) > num_written[row]:
                row = self._write(sequence, row)
            table_rows.append(row)
        sequences, starts, counts, _ = zip(*plan.rows, strict=True)
        if plan.is_decode:
            token_ids = [(sequence.draft_ids or sequence.token_ids)[-1] for sequence in sequences]
        else:
            token_ids = []
            for sequence, start, count, _ in plan.rows:
                token_ids += sequence.token_ids[start : start + count]
                if sequence.draft_ids:
                    token_ids += sequence.draft_ids
        return self._gather(
            np.array(token_ids, dtype=np.int64),
            np.array(table_rows),
            np.array(starts, dtype=np.int64),
            np.array(counts, dtype=np.int64),
            _slots(sequences) if self._has_adapters else None,
        )

    def _gather(
        self,
        token_ids: np.ndarray,
        rows: np.ndarray,
        starts: np.ndarray,
        counts: np.ndarray,
        adapters: np.ndarray | None,
    ) -> StepArrays:
        lengths = starts + counts
        num_blocks = -(-int(lengths.max()) // self._block_size)
        tables = self._tables[rows, :num_blocks]
        query_starts = np.zeros(len(rows) + 1, dtype=np.int32)
        np.cumsum(counts, out=query_starts[1:])
        if len(token_ids) == len(rows):
            owners, positions = np.arange(len(rows)), starts
        else:
            owners = np.repeat(np.arange(len(rows)), counts)
            positions = np.arange(len(token_ids)) + np.repeat(starts - query_starts[:-1], counts)
        blocks = tables[owners, positions // self._block_size]
        slots = blocks.astype(np.int64) * self._block_size + positions % self._block_size
        if token_ids.min() < 0:
            token_ids = np.where(token_ids < 0, -1 - rows[owners], token_ids)
        return StepArrays(
            token_ids, positions, slots, query_starts, lengths.astype(np.int32), tables, adapters
        )

    def _write(self, sequence: Sequence, row: int | None) -> int:
        """Brings a sequence's row, perhaps a new one, up to date."""
        if row is None:
            row = self._rows[sequence.id] = self._free.pop()
        block_ids, written = sequence.block_ids, self._num_written[row]
        self._tables[row, written : len(block_ids)] = block_ids[written:]
        self._num_written[row] = len(block_ids)
        return row


def _slots(sequences: Iterable[Sequence]) -> np.ndarray | None:
    slots = [sequence.adapter_slot for sequence in sequences]
    return np.array(slots, dtype=np.int64) if any(slots) else None
