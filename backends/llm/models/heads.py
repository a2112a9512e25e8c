"""Grouped attention in torch: its products and what is done to heads, around an Attention."""

from collections.abc import Callable

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import Attention
from trivet.backends.llm.families.kinds import GroupedAttention, Norm, NormSpan
from trivet.backends.llm.models.norms import make_norm
from trivet.backends.llm.models.parts import AttentionWeights, NormWeights

Turn = tuple[Tensor, Tensor]
"""Cosines and sines of a step's positions, each [N, 1, what is rotated]; sines are negative in the
first half: what a rotation takes away there it adds in the second."""
AttendFunction = Callable[[Tensor, Turn | None], Tensor]
"""One layer's attention: [N, hidden] to this rank's part of the sum, [N, hidden]."""


class Turns:
    """A table of rotary positions."""

    def __init__(self, cosines: Tensor, sines: Tensor) -> None:
        """Both [positions, what is rotated of a head]."""
        first, second = sines.chunk(2, dim=-1)
        self._cosines, self._sines = cosines, torch.cat((-first, second), dim=-1)

    def at(self, positions: Tensor) -> Turn:
        """For the tokens of a step."""
        return self._cosines[positions].unsqueeze(1), self._sines[positions].unsqueeze(1)


class Heads:
    """One layer's attention."""

    def __init__(
        self, kind: GroupedAttention, weights: AttentionWeights, attention: Attention, layer: int
    ) -> None:
        """`kind`: of what this process computes."""
        self._num_heads, self._num_kv_heads = kind.num_heads, kind.num_kv_heads
        self._head_dim = kind.head_dim
        self._rotate = rotated_part if kind.rope and kind.rope.size else _rotated
        self._clip = kind.qkv_clip
        self._attention = attention
        self._layer = layer
        self._qkv = weights.qkv.product(weights.qkv_bias)
        self._output = weights.output.product(weights.output_bias)
        self._norm = _heads_norm(kind, weights)
        self._sinks = weights.sinks

    def __call__(self, states: Tensor, turn: Turn | None) -> Tensor:
        """[N, hidden] to this rank's part of the sum, [N, hidden]; `turn`: None where heads are not
        rotated."""
        num_heads, num_kv_heads = self._num_heads, self._num_kv_heads
        qkv = self._qkv(states).view(len(states), -1, self._head_dim)
        heads, value = torch.split(qkv, [num_heads + num_kv_heads, num_kv_heads], dim=1)
        if self._norm is not None:
            heads = self._norm(heads)
        if self._clip:
            heads, value = (each.clamp(-self._clip, self._clip) for each in (heads, value))
        if turn is not None:
            heads = self._rotate(heads, *turn)
        query, key = torch.split(heads, [num_heads, num_kv_heads], dim=1)
        attended = self._attention.attend(self._layer, query, key, value, self._sinks)
        return self._output(attended.reshape(len(states), -1))


HeadsNorm = Callable[[Tensor], Tensor]
"""Of query and key heads together, [N, heads + key/value heads, head size]."""


def _heads_norm(kind: GroupedAttention, weights: AttentionWeights) -> HeadsNorm | None:
    query, key = weights.query_norm, weights.key_norm
    if kind.head_norm is None or query is None or key is None:
        return None
    biases = weights.query_norm_bias, weights.key_norm_bias
    if kind.norm_span is NormSpan.ALL:
        return _joint_norm(kind, NormWeights(query, biases[0]), NormWeights(key, biases[1]))
    # [query and key heads, head size]: they are normed, and rotated, in one go.
    counts = kind.num_heads, kind.num_kv_heads
    bias = None
    if biases[0] is not None and biases[1] is not None:
        bias = _for_each_head((biases[0], biases[1]), counts)
    return make_norm(kind.head_norm, NormWeights(_for_each_head((query, key), counts), bias))


def _for_each_head(parts: tuple[Tensor, Tensor], counts: tuple[int, int]) -> Tensor:
    return torch.cat([part.expand(count, -1) for part, count in zip(parts, counts, strict=True)])


def _joint_norm(kind: GroupedAttention, query: NormWeights, key: NormWeights) -> HeadsNorm:
    assert kind.head_norm is not None
    norm: Norm = kind.head_norm
    norms = make_norm(norm, query), make_norm(norm, key)
    counts = [kind.num_heads, kind.num_kv_heads]

    def normed(heads: Tensor) -> Tensor:
        parts = torch.split(heads, counts, dim=1)
        return torch.cat(
            [
                each(part.flatten(1)).view(part.shape)
                for each, part in zip(norms, parts, strict=True)
            ],
            dim=1,
        )

    return normed


def _rotated(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    swapped = states.roll(states.shape[-1] // 2, dims=-1)
    return torch.addcmul(states * cosines, swapped, sines)


def rotated_part(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Of heads [N, heads, size] what comes first is rotated."""
    turned, kept = states.tensor_split([cosines.shape[-1]], dim=-1)
    return torch.cat((_rotated(turned, cosines, sines), kept), dim=-1)
