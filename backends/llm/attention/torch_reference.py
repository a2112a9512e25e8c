"""Attention in plain torch: runs anywhere, and says what the other ways must give."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache


@dataclass(frozen=True, slots=True)
class _Decodes:
    """Rows with one query each, computed together."""

    tokens: Tensor | slice
    """Their places in the step."""
    slots: Tensor
    """int64 [rows * longest]: cache slots of their own tokens, padded with slot 0."""
    mask: Tensor
    """[rows, 1, 1, longest]: 0 where a token is seen, minus infinity where not."""
    shared: Tensor | None
    """int64 [tokens]: cache slots of what all of them begin with, if that is worth a pass of its
    own."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One row with several queries."""

    start: int
    end: int
    slots: Tensor
    """int64 [length]."""
    mask: Tensor
    """[queries, length]: 0 where a token is seen, minus infinity where not."""


_MIN_SAVED_TOKENS = 2048
"""So many tokens must be spared the gathering for a shared beginning to be attended to apart: that
costs 0.1 ms a layer."""


class TorchAttention:
    """Gathers the pages of each sequence and multiplies.

    Of sequences with one query each, query heads that share a key/value head become rows of one
    matrix product: repeating keys and values for them, as `enable_gqa` does, moves several times
    the memory. What all of them begin with (the blocks of a shared prefix) is gathered once and
    attended to by all queries in one product; both parts are joined by the sums of their
    exponentials (cascade inference: Ye et al., FlashInfer, 2024).
    """

    def __init__(self, cache: KvCache, scale: float, sliding_window: int = 0) -> None:
        self._scale = scale
        self._window = sliding_window
        self.hold(cache)

    def hold(self, cache: KvCache) -> None:
        """Reads and writes this cache from now on."""
        self._cache = cache
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
        if decodes.shared is None:
            output = functional.scaled_dot_product_attention(
                grouped, seen_keys, seen_values, attn_mask=decodes.mask, scale=self._scale
            )
        else:
            own = self._partial(grouped, seen_keys, seen_values, decodes.mask)
            output = _joined(own, self._attend_shared(decodes.shared, grouped, keys, values))
        return output.reshape(rows, num_heads, size)

    def _attend_shared(
        self, slots: Tensor, grouped: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows, num_kv, group, size = grouped.shape
        output, sums = self._partial(
            grouped.transpose(0, 1).reshape(1, num_kv, rows * group, size),
            keys.index_select(0, slots).transpose(0, 1).unsqueeze(0),
            values.index_select(0, slots).transpose(0, 1).unsqueeze(0),
            None,
        )
        shape = (num_kv, rows, group)
        return output.view(*shape, size).transpose(0, 1), sums.view(shape).transpose(0, 1)

    def _partial(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attention, and the logarithms of the sums of its exponentials: float32 [.., queries]."""
        # What scaled_dot_product_attention runs; nothing public gives the sums on a CPU.
        output, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001
            query, keys, values, 0.0, False, attn_mask=mask, scale=self._scale
        )
        return output, sums

    def _attend_chunk(self, chunk: _Chunk, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        output = functional.scaled_dot_product_attention(
            query.transpose(0, 1).unsqueeze(0),
            keys.index_select(0, chunk.slots).transpose(0, 1).unsqueeze(0),
            values.index_select(0, chunk.slots).transpose(0, 1).unsqueeze(0),
            attn_mask=chunk.mask,
            scale=self._scale,
            enable_gqa=True,
        )
        return output[0].transpose(0, 1)

    # -- where the tokens lie ------------------------------------------------------------------

    def _plan_decodes(self, inputs: StepInputs, rows: list[int]) -> _Decodes:
        is_all = len(rows) == len(inputs.sequence_lengths)
        lengths = inputs.sequence_lengths if is_all else inputs.sequence_lengths[rows]
        tables = inputs.block_tables if is_all else inputs.block_tables[rows]
        longest = int(lengths.max())
        shared = 0 if self._window else self._num_shared(tables)
        places = torch.arange(shared, longest, device=lengths.device)
        slots = self._slots(tables, places)
        is_seen = places < lengths.unsqueeze(1)
        if self._window:
            is_seen &= places >= lengths.unsqueeze(1) - self._window
        tokens = slice(None) if is_all else inputs.query_starts[rows].long()
        padded = slots.masked_fill_(~is_seen, 0).flatten()
        first = torch.arange(shared, device=lengths.device)
        return _Decodes(
            tokens,
            padded,
            self._mask(is_seen)[:, None, None],
            self._slots(tables[:1], first)[0] if shared else None,
        )

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
        tokens = num_blocks * self._cache.block_size
        return tokens if (rows - 1) * tokens >= _MIN_SAVED_TOKENS else 0

    def _plan_chunk(
        self, inputs: StepInputs, row: int, start: int, end: int, length: int
    ) -> _Chunk:
        places = torch.arange(length, device=inputs.positions.device)
        slots = self._slots(inputs.block_tables[row : row + 1], places)[0]
        positions = inputs.positions[start:end].unsqueeze(1)
        is_seen = places <= positions
        if self._window:
            is_seen &= places > positions - self._window
        return _Chunk(start, end, slots, self._mask(is_seen))

    def _mask(self, is_seen: Tensor) -> Tensor:
        """Made once a step: torch would turn booleans into numbers in each layer."""
        mask = torch.zeros(is_seen.shape, dtype=self._keys[0].dtype, device=is_seen.device)
        return mask.masked_fill_(~is_seen, -torch.inf)

    def _slots(self, tables: Tensor, places: Tensor) -> Tensor:
        size = self._cache.block_size
        return tables[:, places // size].long() * size + places % size


def _joined(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Attention over two parts from that over each."""
    share = torch.sigmoid(other[1] - one[1]).unsqueeze(-1)
    return torch.lerp(one[0].float(), other[0].float(), share).to(one[0].dtype)
