"""A layer's attention as the compiled step computes it, for models whose code is not ours: of
states that are rotated already, or with the products and the rotation around it."""

import ctypes
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.families.kinds import GroupedAttention
from trivet.backends.llm.families.needs import Need
from trivet.backends.llm.native.alone import TILE, NativeProduct, alone, readable
from trivet.backends.llm.native.kinds import heads_why_not
from trivet.backends.llm.native.library import Native
from trivet.backends.llm.native.packing import PANEL
from trivet.backends.llm.native.structures import CAttended, CAttentionBlock, CLayer, CStep

_COMPUTED = frozenset({Need.UNROTATED, Need.WINDOW})
"""Of attention: states are rotated already."""
_FLOAT, _HALF = torch.float32.itemsize, torch.bfloat16.itemsize


class NativeAttention:
    """See Attention. Scores are joined by no sinks."""

    def __init__(self, cache: KvCache, layers: Sequence[GroupedAttention], native: Native) -> None:
        """`attention_why_not` must have said nothing."""
        self.kinds = layers
        self.native = native
        self.model = alone(native)
        """What it tells of the machine and of the cache."""
        self.layers = [
            CLayer(heads=kind.num_heads, kv_heads=kind.num_kv_heads, head_dim=kind.head_dim,
                   window=kind.window, scale=kind.scale)
            for kind in layers
        ]  # fmt: skip
        self.step = CStep()
        """The one that has begun."""
        self._attend = native.functions.attend_alone
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self.hold(cache)

    def hold(self, cache: KvCache) -> None:
        """See Attention."""
        self.model.block_size = cache.block_size
        self._cache = cache.layers
        for made, states in zip(self.layers, cache.layers, strict=True):
            made.keys, made.values = states[0].data_ptr(), states[1].data_ptr()

    def begin(self, inputs: StepInputs) -> None:
        """See Attention."""
        num_sequences, most_blocks = inputs.block_tables.shape
        tables = inputs.block_tables.contiguous()
        self._kept = inputs, tables
        self.step = CStep(
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
            ctypes.addressof(self.layers[layer]), ctypes.addressof(self.step),
            read.data_ptr(), key.data_ptr(), value.data_ptr(), made.data_ptr(),
        )  # fmt: skip
        self._attend(ctypes.byref(self.model), ctypes.byref(given))
        return made

    def scratch(self, size: int) -> int:
        """The address of so many bytes, for a layer of the step."""
        if len(self._scratch) < size:
            # Zeroed, for rows that only fill up a tile are computed with, too.
            self._scratch = torch.zeros(size, dtype=torch.uint8)
        return self._scratch.data_ptr()

    def _readable(self, query: Tensor) -> Tensor:
        """With the numbers that only fill up tiles."""
        tokens, heads, size = query.shape
        missing = -size % PANEL
        if not missing and not self._has_tiles:
            return query.contiguous()
        read = query.new_zeros(tokens + TILE, heads, size + missing)
        read[:tokens, :, :size] = query
        return read


class NativeAttentionBlock:
    """Queries, keys and values of states, rotated, attended to, and the product of what comes:
    [1, tokens, hidden] to the same, of bfloat16, for all tokens of the attention's step."""

    def __init__(
        self,
        attention: NativeAttention,
        layer: int,
        into: NativeProduct,
        output: NativeProduct,
        rotated: int,
    ) -> None:
        """`into`: to queries, keys and values, behind one another. `rotated`: so much of a head.
        `block_why_not` must have said nothing."""
        self._attention = attention
        made, kind = attention.layers[layer], attention.kinds[layer]
        made.rotated, made.is_turned_by_token = rotated, True
        for name, product in (("qkv", into), ("output", output)):
            setattr(made, name, ctypes.addressof(product.matrix.array))
            bias = None if product.bias is None else product.bias.data_ptr()
            setattr(made, f"{name}_bias", bias)
        self._products = into, output
        size, heads = kind.head_dim, kind.num_heads
        self._qkv_bytes = into.outputs * _FLOAT
        self._query_bytes = heads * (size + -size % PANEL) * _HALF
        self._attended_bytes = heads * size * _HALF
        self.layer = made
        """Of the attention."""
        self._given = CAttentionBlock(layer=ctypes.addressof(made), hidden=output.outputs)
        self._compute = attention.native.functions.block_alone
        self._arguments = ctypes.byref(attention.model), ctypes.byref(self._given)

    def __call__(self, states: Tensor, cosines: Tensor | None, sines: Tensor | None) -> Tensor:
        """Computed. `cosines`, `sines`: [.., tokens, rotated], side by side, in bfloat16; None
        where nothing is rotated."""
        attention, given, layer = self._attention, self._given, self.layer
        read = readable(states)
        made = torch.empty_like(states, memory_format=torch.contiguous_format)
        if cosines is not None and sines is not None:
            layer.cosines, layer.sines = cosines.data_ptr(), sines.data_ptr()
        tokens, padded = attention.step.tokens, attention.step.tokens + TILE
        query = padded * self._qkv_bytes
        attended = query + padded * self._query_bytes
        first = attention.scratch(attended + padded * self._attended_bytes)
        given.step = ctypes.addressof(attention.step)
        given.qkv, given.query, given.attended = first, first + query, first + attended
        given.left, given.to = read.data_ptr(), made.data_ptr()
        assert states.numel() == tokens * given.hidden
        self._compute(*self._arguments)
        return made


def attention_why_not(cache: KvCache, layers: Sequence[GroupedAttention]) -> str:
    """Why NativeAttention cannot compute these; empty if it can."""
    first = cache.layers[0]
    if first.dtype != torch.bfloat16 or first.device.type != "cpu":
        return "it attends in bfloat16 on processors"
    if any(not set(kind.needs()) <= _COMPUTED for kind in layers):
        return "it computes scores and windows only"
    return next(filter(None, map(heads_why_not, layers)), "")


def block_why_not(kind: GroupedAttention, into: NativeProduct, output: NativeProduct) -> str:
    """Why NativeAttentionBlock cannot be made of these products; empty if it can."""
    heads = kind.num_heads * kind.head_dim
    states = kind.num_kv_heads * kind.head_dim
    if (into.inputs, into.outputs) != (output.outputs, heads + 2 * states):
        return "one product gives no queries, keys and values"
    if output.inputs != heads or output.outputs % PANEL:
        return "another product does not read what is attended to"
    return ""
