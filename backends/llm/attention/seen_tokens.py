"""Which tokens the queries of a step see and where they lie in the cache, as tensors: made once a
step for all layers that see alike."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.families.kinds import GroupedAttention

_MIN_SAVED_TOKENS = 2048
"""So many tokens must be spared the gathering for a shared beginning to be attended to apart: that
costs 0.1 ms a layer."""


def is_changed(kind: GroupedAttention) -> bool:
    """Whether something is done to scores that no kernel of torch's does."""
    return bool(kind.score_cap or kind.has_sinks)


@dataclass(frozen=True, slots=True)
class Sight:
    """What decides which tokens a layer's queries see, and with which bias."""

    window: int
    slopes: tuple[float, ...]
    num_kv_heads: int
    """Whose query heads the slopes are of, in groups."""
    is_whole: bool
    """Whether scores are changed, or joined by sinks, so that parts cannot be attended to apart."""

    @classmethod
    def of(cls, kind: GroupedAttention) -> "Sight":
        """A layer's."""
        return cls(kind.window, kind.slopes, kind.num_kv_heads, is_changed(kind))

    @property
    def is_plain(self) -> bool:
        """Whether all that came before is seen alike."""
        return not (self.window or self.slopes or self.is_whole)


@dataclass(frozen=True, slots=True)
class Decodes:
    """Rows with one query each, computed together."""

    tokens: Tensor | slice
    """Their places in the step."""
    slots: Tensor
    """int64 [rows * longest]: cache slots of their own tokens, padded with slot 0."""
    mask: Tensor
    """[rows, 1 or key/value heads, 1 or group, longest]: what is added to scores, minus infinity
    where a token is not seen."""
    shared: Tensor | None
    """int64 [tokens]: cache slots of what all of them begin with, if that is worth a pass of its
    own."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One row with several queries."""

    start: int
    end: int
    slots: Tensor
    """int64 [length]."""
    mask: Tensor
    """[queries, length], or [heads, queries, length] where heads differ: what is added to scores,
    minus infinity where a token is not seen."""


class StepTokens:
    """Of one step."""

    def __init__(self, inputs: StepInputs, block_size: int, dtype: torch.dtype) -> None:
        self._inputs, self._block_size, self._dtype = inputs, block_size, dtype
        self._device = inputs.positions.device

    def decodes(self, sight: Sight, rows: list[int]) -> Decodes:
        """Of the rows of one query each."""
        inputs = self._inputs
        is_all = len(rows) == len(inputs.sequence_lengths)
        lengths = inputs.sequence_lengths if is_all else inputs.sequence_lengths[rows]
        tables = inputs.block_tables if is_all else inputs.block_tables[rows]
        tokens = slice(None) if is_all else inputs.query_starts[rows].long()
        ends = lengths.unsqueeze(1)
        shared = self._num_shared(tables) if sight.is_plain else 0
        places = torch.arange(shared, int(lengths.max()), device=self._device)
        if sight.window and len(places) > sight.window:
            # Only what is seen is gathered: of each row the last tokens.
            first = (ends - sight.window).clamp_min(0)
            places = first + places[: sight.window]
            slots = self._slots_of_each(tables, places)
        else:
            slots = self._slots(tables, places)
        is_seen = places < ends
        if sight.window:
            is_seen = is_seen & (places >= ends - sight.window)
        padded = slots.masked_fill_(~is_seen, 0).flatten()
        mask = self._mask(is_seen)[:, None, None]
        if sight.slopes:
            biases = self._biases(sight, places - (ends - 1))  # [heads, rows, longest]
            num_rows, _, longest = biases.transpose(0, 1).shape
            grouped = biases.transpose(0, 1).reshape(num_rows, sight.num_kv_heads, -1, longest)
            mask = mask + grouped
        first_slots = self._slots(tables[:1], torch.arange(shared, device=self._device))
        return Decodes(tokens, padded, mask, first_slots[0] if shared else None)

    def chunk(self, sight: Sight, row: int, start: int, end: int, length: int) -> Chunk:
        """Of a row whose queries are the step's tokens from `start` to `end`."""
        first = max(0, length - (end - start) - sight.window + 1) if sight.window else 0
        places = torch.arange(first, length, device=self._device)
        slots = self._slots(self._inputs.block_tables[row : row + 1], places)[0]
        positions = self._inputs.positions[start:end].unsqueeze(1)
        is_seen = places <= positions
        if sight.window:
            is_seen &= places > positions - sight.window
        mask = self._mask(is_seen)
        if sight.slopes:
            mask = mask + self._biases(sight, places - positions)
        return Chunk(start, end, slots, mask)

    def _num_shared(self, tables: Tensor) -> int:
        """How many tokens all rows begin with; 0 if a pass for them would not pay.

        Nobody writes into a shared block: each row has at least the token of this step in a block
        of its own.
        """
        rows = len(tables)
        if rows == 1 or tables.device.type != "cpu":
            return 0
        is_same = (tables == tables[0]).all(0)
        num_blocks = int(is_same.long().cumprod(0).sum())
        tokens = num_blocks * self._block_size
        return tokens if (rows - 1) * tokens >= _MIN_SAVED_TOKENS else 0

    def _mask(self, is_seen: Tensor) -> Tensor:
        """Made once a step: torch would turn booleans into numbers in each layer."""
        mask = torch.zeros(is_seen.shape, dtype=self._dtype, device=self._device)
        return mask.masked_fill_(~is_seen, -torch.inf)

    def _biases(self, sight: Sight, distances: Tensor) -> Tensor:
        """[heads, ..]: of each head, by how far tokens lie behind; 0 at the query's own."""
        slopes = torch.tensor(sight.slopes, device=self._device)
        return (slopes.view(-1, 1, 1) * distances).to(self._dtype)

    def _slots(self, tables: Tensor, places: Tensor) -> Tensor:
        """[rows, places] of the same places in all rows."""
        size = self._block_size
        return tables[:, places // size].long() * size + places % size

    def _slots_of_each(self, tables: Tensor, places: Tensor) -> Tensor:
        """[rows, places] of places of each row's own; behind the last block anywhere."""
        size = self._block_size
        blocks = (places // size).clamp_max(tables.shape[1] - 1)
        return tables.gather(1, blocks.long()).long() * size + places % size
