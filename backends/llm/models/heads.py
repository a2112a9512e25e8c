"""Grouped attention in torch: its products and what is done to heads, around an Attention."""

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import Attention
from trivet.backends.llm.families.kinds import GroupedAttention
from trivet.backends.llm.models.norms import rms_norm
from trivet.backends.llm.models.parts import AttentionWeights

Turn = tuple[Tensor, Tensor]
"""Cosines and sines of a step's positions, each [N, 1, head size]; sines are negative in the first
half: what a rotation takes away there it adds in the second."""


class Turns:
    """A table of rotary positions."""

    def __init__(self, cosines: Tensor, sines: Tensor) -> None:
        """Both [positions, head size]."""
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
        self._attention = attention
        self._layer = layer
        self._qkv = weights.qkv.product(weights.qkv_bias)
        self._output = weights.output.product(weights.output_bias)
        self._norm_weight: Tensor | None = None
        if kind.head_norm and weights.query_norm is not None and weights.key_norm is not None:
            # [query and key heads, head size]: they are normed, and rotated, in one go.
            query = weights.query_norm.expand(kind.num_heads, -1)
            key = weights.key_norm.expand(kind.num_kv_heads, -1)
            self._norm_weight = torch.cat((query, key))
            self._eps = kind.head_norm.eps

    def __call__(self, states: Tensor, turn: Turn | None) -> Tensor:
        """[N, hidden] to this rank's part of the sum, [N, hidden]; `turn`: None where heads are not
        rotated."""
        num_heads, num_kv_heads = self._num_heads, self._num_kv_heads
        qkv = self._qkv(states).view(len(states), -1, self._head_dim)
        heads, value = torch.split(qkv, [num_heads + num_kv_heads, num_kv_heads], dim=1)
        if self._norm_weight is not None:
            heads = rms_norm(heads, self._norm_weight, self._eps)
        if turn is not None:
            heads = _rotated(heads, *turn)
        query, key = torch.split(heads, [num_heads, num_kv_heads], dim=1)
        attended = self._attention.attend(self._layer, query, key, value)
        return self._output(attended.reshape(len(states), -1))


def _rotated(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    swapped = states.roll(states.shape[-1] // 2, dims=-1)
    return torch.addcmul(states * cosines, swapped, sines)
