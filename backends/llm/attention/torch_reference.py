"""Attention in plain torch: runs anywhere, and says what the other ways must give."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.kv_cache import KvCache


@dataclass(frozen=True, slots=True)
class _Decodes:
    """Rows with one query each, computed together."""

    tokens: Tensor | slice
    """Their places in the step."""
    slots: Tensor
    """int64 [rows * longest]: cache slots of their tokens, padded with slot 0."""
    is_seen: Tensor
    """bool [rows, 1, 1, longest]."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One row with several queries."""

    start: int
    end: int
    slots: Tensor
    """int64 [length]."""
    is_seen: Tensor
    """bool [queries, length]."""


class TorchAttention:
    """Gathers the pages of each sequence and multiplies.

    Query heads that share a key/value head become rows of one matrix product: repeating keys and
    values for them, as `enable_gqa` does, moves several times the memory.
    """

    def __init__(self, cache: KvCache, scale: float, sliding_window: int = 0) -> None:
        self._cache = cache
        self._scale = scale
        self._window = sliding_window
        # [slots, key/value heads, head size] of each layer.
        self._keys = [layer[0].flatten(0, 1) for layer in cache.layers]
        self._values = [layer[1].flatten(0, 1) for layer in cache.layers]

    def begin(self, inputs: StepInputs) -> None:
        """Finds out, once for all layers, where each sequence's tokens lie."""
        self._slot_mapping = inputs.slot_mapping
        starts = inputs.query_starts.tolist()
        lengths = inputs.sequence_lengths.tolist()
        counts = [end - start for start, end in pairwise(starts)]
        single = [row for row, count in enumerate(counts) if count == 1]
        self._decodes = self._plan_decodes(inputs, single) if single else None
        self._chunks = [
            self._plan_chunk(inputs, row, starts[row], starts[row + 1], lengths[row])
            for row, count in enumerate(counts)
            if count > 1
        ]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See Attention."""
        keys, values = self._keys[layer], self._values[layer]
        keys[self._slot_mapping] = key
        values[self._slot_mapping] = value
        decodes = self._decodes
        if decodes is not None and not self._chunks:
            return self._decode(decodes, query, keys, values)
        output = torch.empty_like(query)
        if decodes is not None:
            output[decodes.tokens] = self._decode(decodes, query[decodes.tokens], keys, values)
        for chunk in self._chunks:
            part = query[chunk.start : chunk.end]
            output[chunk.start : chunk.end] = self._attend_chunk(chunk, part, keys, values)
        return output

    def _decode(self, decodes: _Decodes, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        rows, num_heads, size = query.shape
        num_kv = keys.shape[1]
        grouped = query.view(rows, num_kv, num_heads // num_kv, size)
        # index_select copies whole rows; indexing with a tensor takes three times as long here.
        seen_keys, seen_values = (
            states.index_select(0, decodes.slots).view(rows, -1, num_kv, size).transpose(1, 2)
            for states in (keys, values)
        )
        output = functional.scaled_dot_product_attention(
            grouped, seen_keys, seen_values, attn_mask=decodes.is_seen, scale=self._scale
        )
        return output.reshape(rows, num_heads, size)

    def _attend_chunk(self, chunk: _Chunk, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        count, num_heads, size = query.shape
        num_kv = keys.shape[1]
        group = num_heads // num_kv
        grouped = query.view(count, num_kv, group, size).permute(1, 2, 0, 3)
        output = functional.scaled_dot_product_attention(
            grouped.reshape(1, num_kv, group * count, size),
            keys[chunk.slots].transpose(0, 1).unsqueeze(0),
            values[chunk.slots].transpose(0, 1).unsqueeze(0),
            attn_mask=chunk.is_seen.repeat(group, 1),
            scale=self._scale,
        )
        return output.view(num_kv, group, count, size).permute(2, 0, 1, 3).reshape(query.shape)

    # -- where the tokens lie ------------------------------------------------------------------

    def _plan_decodes(self, inputs: StepInputs, rows: list[int]) -> _Decodes:
        is_all = len(rows) == len(inputs.sequence_lengths)
        lengths = inputs.sequence_lengths if is_all else inputs.sequence_lengths[rows]
        tables = inputs.block_tables if is_all else inputs.block_tables[rows]
        longest = int(lengths.max())
        places = torch.arange(longest, device=lengths.device)
        slots = self._slots(tables, places)
        is_seen = places < lengths.unsqueeze(1)
        if self._window:
            is_seen &= places >= lengths.unsqueeze(1) - self._window
        tokens = slice(None) if is_all else inputs.query_starts[rows].long()
        padded = slots.masked_fill_(~is_seen, 0)
        return _Decodes(tokens, padded.flatten(), is_seen[:, None, None])

    def _plan_chunk(
        self, inputs: StepInputs, row: int, start: int, end: int, length: int
    ) -> _Chunk:
        places = torch.arange(length, device=inputs.positions.device)
        slots = self._slots(inputs.block_tables[row : row + 1], places)[0]
        positions = inputs.positions[start:end].unsqueeze(1)
        is_seen = places <= positions
        if self._window:
            is_seen &= places > positions - self._window
        return _Chunk(start, end, slots, is_seen)

    def _slots(self, tables: Tensor, places: Tensor) -> Tensor:
        size = self._cache.block_size
        return tables[:, places // size].long() * size + places % size
