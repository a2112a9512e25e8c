"""A layer's attention as the compiled step computes it, for models whose code is not ours."""

import ctypes
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.families.kinds import GroupedAttention
from trivet.backends.llm.families.needs import Need
from trivet.backends.llm.native.alone import TILE, alone
from trivet.backends.llm.native.kinds import heads_why_not
from trivet.backends.llm.native.library import Native
from trivet.backends.llm.native.packing import PANEL
from trivet.backends.llm.native.structures import CAttended, CLayer, CStep

_COMPUTED = frozenset({Need.UNROTATED, Need.WINDOW})
"""Of attention: states are rotated already."""


class NativeAttention:
    """See Attention. Scores are joined by no sinks."""

    def __init__(self, cache: KvCache, layers: Sequence[GroupedAttention], native: Native) -> None:
        """`attention_why_not` must have said nothing."""
        self._kinds = layers
        self._model = alone(native)
        self._attend = native.functions.attend_alone
        self.hold(cache)

    def hold(self, cache: KvCache) -> None:
        """See Attention."""
        self._model.block_size = cache.block_size
        self._cache = cache.layers
        self._layers = [
            CLayer(
                heads=kind.num_heads, kv_heads=kind.num_kv_heads, head_dim=kind.head_dim,
                window=kind.window, scale=kind.scale, keys=states[0].data_ptr(),
                values=states[1].data_ptr(),
            )
            for kind, states in zip(self._kinds, cache.layers, strict=True)
        ]  # fmt: skip

    def begin(self, inputs: StepInputs) -> None:
        """See Attention."""
        num_sequences, most_blocks = inputs.block_tables.shape
        tables = inputs.block_tables.contiguous()
        self._kept = inputs, tables
        self._step = CStep(
            tokens=len(inputs.token_ids), sequences=num_sequences, most_blocks=most_blocks,
            positions=inputs.positions.data_ptr(), slots=inputs.slot_mapping.data_ptr(),
            starts=inputs.query_starts.data_ptr(), lengths=inputs.sequence_lengths.data_ptr(),
            tables=tables.data_ptr(),
        )  # fmt: skip
        starts = inputs.query_starts.tolist()
        self._has_tiles = any(end - start >= TILE for start, end in pairwise(starts))

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, sinks: Tensor | None = None
    ) -> Tensor:
        """See Attention."""
        assert sinks is None
        read, made = self._readable(query), torch.empty_like(query)
        key, value = key.contiguous(), value.contiguous()
        given = CAttended(
            ctypes.addressof(self._layers[layer]), ctypes.addressof(self._step),
            read.data_ptr(), key.data_ptr(), value.data_ptr(), made.data_ptr(),
        )  # fmt: skip
        self._attend(ctypes.byref(self._model), ctypes.byref(given))
        return made

    def _readable(self, query: Tensor) -> Tensor:
        """With the numbers that only fill up tiles."""
        tokens, heads, size = query.shape
        missing = -size % PANEL
        if not missing and not self._has_tiles:
            return query.contiguous()
        read = query.new_zeros(tokens + TILE, heads, size + missing)
        read[:tokens, :, :size] = query
        return read


def attention_why_not(cache: KvCache, layers: Sequence[GroupedAttention]) -> str:
    """Why NativeAttention cannot compute these; empty if it can."""
    first = cache.layers[0]
    if first.dtype != torch.bfloat16 or first.device.type != "cpu":
        return "it attends in bfloat16 on processors"
    if any(not set(kind.needs()) <= _COMPUTED for kind in layers):
        return "it computes scores and windows only"
    return next(filter(None, map(heads_why_not, layers)), "")
