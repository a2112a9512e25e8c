"""Attention in plain torch: runs anywhere, and says what the other ways must give."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.seen_tokens import (
    Chunk,
    Decodes,
    Sight,
    StepTokens,
    is_changed,
)
from trivet.backends.llm.attention.states import States, states_of
from trivet.backends.llm.families.kinds import GroupedAttention


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the queries of a step see in the layers of one sight."""

    decodes: Decodes | None
    chunks: list[Chunk]


class TorchAttention:
    """Gathers the pages of each sequence and multiplies.

    Of sequences with one query each, query heads that share a key/value head become rows of one
    matrix product: repeating keys and values for them, as `enable_gqa` does, moves several times
    the memory. What all of them begin with (the blocks of a shared prefix) is gathered once and
    attended to by all queries in one product; both parts are joined by the sums of their
    exponentials (cascade inference: Ye et al., FlashInfer, 2024).
    """

    def __init__(self, cache: KvCache, layers: Sequence[GroupedAttention]) -> None:
        """`layers`: of this process, in order."""
        self._kinds = layers
        sights = [Sight.of(kind) for kind in layers]
        self._sights = list(dict.fromkeys(sights))
        self._places = [self._sights.index(sight) for sight in sights]
        """For each layer the place of its sight."""
        self._seen: list[_Seen] = []
        self.hold(cache)

    def hold(self, cache: KvCache) -> None:
        """Reads and writes this cache from now on."""
        self._cache = cache
        self._states = states_of(cache)

    def begin(self, inputs: StepInputs) -> None:
        """Finds out, once for all layers that see alike, where each sequence's tokens lie."""
        self._slot_mapping = inputs.slot_mapping
        starts = inputs.query_starts.tolist()
        lengths = inputs.sequence_lengths.tolist()
        counts = [end - start for start, end in pairwise(starts)]
        single = [row for row, count in enumerate(counts) if count == 1]
        tokens = StepTokens(inputs, self._cache.block_size, self._cache.read_as)
        self._seen = [
            _Seen(
                tokens.decodes(sight, single) if single else None,
                [
                    tokens.chunk(sight, row, starts[row], starts[row + 1], lengths[row])
                    for row, count in enumerate(counts)
                    if count > 1
                ],
            )
            for sight in self._sights
        ]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, sinks: Tensor | None = None
    ) -> Tensor:
        """See Attention."""
        states = keys, values = self._states[layer]
        keys.put(self._slot_mapping, key)
        if values is not keys:
            values.put(self._slot_mapping, value)
        seen, kind = self._seen[self._places[layer]], self._kinds[layer]
        decodes = seen.decodes
        if decodes is not None and not seen.chunks:
            return self._decode(kind, decodes, query, states, sinks)
        output = torch.empty_like(query)
        if decodes is not None:
            part = query[decodes.tokens]
            output[decodes.tokens] = self._decode(kind, decodes, part, states, sinks)
        for chunk in seen.chunks:
            part = query[chunk.start : chunk.end]
            output[chunk.start : chunk.end] = _of_chunk(kind, chunk, part, states, sinks)
        return output

    def _decode(
        self,
        kind: GroupedAttention,
        decodes: Decodes,
        query: Tensor,
        states: tuple[States, States],
        sinks: Tensor | None,
    ) -> Tensor:
        rows, num_heads, size = query.shape
        num_kv = kind.num_kv_heads
        grouped = query.view(rows, num_kv, num_heads // num_kv, size)
        keys, values = (
            each.at(decodes.slots).view(rows, -1, num_kv, size).transpose(1, 2) for each in states
        )
        if decodes.shared is not None:
            own = _partial(kind.scale, grouped, keys, values, decodes.mask)
            shared = _of_shared(kind.scale, decodes.shared, grouped, states)
            return _joined(own, shared).reshape(rows, num_heads, size)
        if is_changed(kind):
            output = _changed(kind, grouped, (keys, values), decodes.mask, sinks)
        else:
            output = functional.scaled_dot_product_attention(
                grouped, keys, values, attn_mask=decodes.mask, scale=kind.scale
            )
        return output.reshape(rows, num_heads, size)


def _of_chunk(
    kind: GroupedAttention,
    chunk: Chunk,
    query: Tensor,
    states: tuple[States, States],
    sinks: Tensor | None,
) -> Tensor:
    keys, values = (each.at(chunk.slots).transpose(0, 1) for each in states)
    heads = query.transpose(0, 1)
    if is_changed(kind):
        num_heads, num_queries, size = heads.shape
        grouped = heads.reshape(len(keys), -1, num_queries, size)
        # One for each head where they differ.
        mask = chunk.mask
        is_of_heads = len(mask.shape) > len(("queries", "places"))
        mask = mask.view(len(keys), -1, *mask.shape[1:]) if is_of_heads else mask
        own = None if sinks is None else sinks.unsqueeze(-1)
        output = _changed(kind, grouped, (keys.unsqueeze(1), values.unsqueeze(1)), mask, own)
        return output.reshape(num_heads, num_queries, size).transpose(0, 1)
    output = functional.scaled_dot_product_attention(
        heads.unsqueeze(0),
        keys.unsqueeze(0),
        values.unsqueeze(0),
        attn_mask=chunk.mask,
        scale=kind.scale,
        enable_gqa=True,
    )
    return output[0].transpose(0, 1)


def _changed(
    kind: GroupedAttention,
    query: Tensor,
    states: tuple[Tensor, Tensor],
    mask: Tensor,
    sinks: Tensor | None,
) -> Tensor:
    """Attention whose scores are capped before they are masked, or joined by sinks: of each head
    one, [heads], or with a further axis for queries."""
    keys, values = states
    scores = (query @ keys.transpose(-1, -2)).float() * kind.scale
    if kind.score_cap:
        scores = torch.tanh(scores / kind.score_cap) * kind.score_cap
    scores = scores + mask
    if sinks is not None:
        own = sinks.float().view(kind.num_kv_heads, -1, *sinks.shape[1:], 1)
        scores = torch.cat((scores, own.expand(*scores.shape[:-1], 1)), dim=-1)
    shares = scores.softmax(dim=-1)[..., : keys.shape[-2]]
    return shares.to(values.dtype) @ values


def _of_shared(
    scale: float, slots: Tensor, grouped: Tensor, states: tuple[States, States]
) -> tuple[Tensor, Tensor]:
    rows, num_kv, group, size = grouped.shape
    keys, values = (each.at(slots).transpose(0, 1).unsqueeze(0) for each in states)
    queries = grouped.transpose(0, 1).reshape(1, num_kv, rows * group, size)
    output, sums = _partial(scale, queries, keys, values, None)
    shape = (num_kv, rows, group)
    return output.view(*shape, size).transpose(0, 1), sums.view(shape).transpose(0, 1)


def _partial(
    scale: float, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention, and the logarithms of the sums of its exponentials: float32 [.., queries]."""
    # What scaled_dot_product_attention runs; nothing public gives the sums on a CPU.
    output, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001
        query, keys, values, 0.0, False, attn_mask=mask, scale=scale
    )
    return output, sums


def _joined(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Attention over two parts from that over each."""
    share = torch.sigmoid(other[1] - one[1]).unsqueeze(-1)
    return torch.lerp(one[0].float(), other[0].float(), share).to(one[0].dtype)
