"""Layers in torch, by how attention, MLP and norms follow each other."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import Attention
from trivet.backends.llm.families.kinds import Arrangement, ExpertMlp
from trivet.backends.llm.families.names import Role
from trivet.backends.llm.models.heads import AttendFunction, Heads, Turn
from trivet.backends.llm.models.latent_heads import LatentHeads
from trivet.backends.llm.models.mlps import Experts, MlpFunction, make_mlp
from trivet.backends.llm.models.norms import NormFunction, make_norm
from trivet.backends.llm.models.parts import (
    take_attention,
    take_experts,
    take_latent,
    take_mlp,
    take_norm,
)
from trivet.backends.llm.weights.taking import Weights


class LayerFunction(Protocol):
    """One layer of a step."""

    def __call__(self, states: Tensor, turn: Turn | None) -> Tensor:
        """[N, hidden] to the same; `turn`: of the layer's rotary positions."""


class _Layer:
    """What all arrangements are made of."""

    def __init__(self, weights: Weights, attention: Attention, layer: int) -> None:
        kind = weights.config.layers[layer]
        self._weights, self._index, self._kind = weights, layer, kind.norm
        self._attend = _attend(weights, attention, layer)
        self._mlp: MlpFunction
        if isinstance(kind.mlp, ExpertMlp):
            self._mlp = Experts(kind.mlp, take_experts(weights, layer), weights.adapters)
        else:
            self._mlp = make_mlp(kind.mlp, take_mlp(weights, layer))
        self._sum = weights.ranks.sum
        self._multiplier = kind.residual_multiplier

    def _norm(self, role: Role) -> NormFunction:
        return make_norm(self._kind, take_norm(self._weights, self._kind, role, self._index))

    def _added(self, states: Tensor, change: Tensor) -> Tensor:
        return torch.add(states, change, alpha=self._multiplier)


def _attend(weights: Weights, attention: Attention, layer: int) -> AttendFunction:
    kind = weights.config.layers[layer].attention
    if kind.latent is not None:
        return LatentHeads(kind, take_latent(weights, layer), attention, layer)
    return Heads(kind, take_attention(weights, layer), attention, layer)


class PreNorm(_Layer):
    """See Arrangement."""

    def __init__(self, weights: Weights, attention: Attention, layer: int) -> None:
        super().__init__(weights, attention, layer)
        self._attention_norm = self._norm(Role.ATTENTION_NORM)
        self._mlp_norm = self._norm(Role.MLP_NORM)

    def __call__(self, states: Tensor, turn: Turn | None) -> Tensor:
        """See LayerFunction."""
        attended = self._attend(self._attention_norm(states), turn)
        states = self._added(states, self._sum(attended))
        return self._added(states, self._sum(self._mlp(self._mlp_norm(states))))


class PostNorm(_Layer):
    """See Arrangement."""

    def __init__(self, weights: Weights, attention: Attention, layer: int) -> None:
        super().__init__(weights, attention, layer)
        self._attention_norm = self._norm(Role.ATTENTION_POST_NORM)
        self._mlp_norm = self._norm(Role.MLP_POST_NORM)

    def __call__(self, states: Tensor, turn: Turn | None) -> Tensor:
        """See LayerFunction."""
        attended = self._attention_norm(self._sum(self._attend(states, turn)))
        states = self._added(states, attended)
        return self._added(states, self._mlp_norm(self._sum(self._mlp(states))))


class Sandwich(PreNorm):
    """See Arrangement."""

    def __init__(self, weights: Weights, attention: Attention, layer: int) -> None:
        super().__init__(weights, attention, layer)
        self._attention_post_norm = self._norm(Role.ATTENTION_POST_NORM)
        self._mlp_post_norm = self._norm(Role.MLP_POST_NORM)

    def __call__(self, states: Tensor, turn: Turn | None) -> Tensor:
        """See LayerFunction."""
        attended = self._sum(self._attend(self._attention_norm(states), turn))
        states = self._added(states, self._attention_post_norm(attended))
        changed = self._sum(self._mlp(self._mlp_norm(states)))
        return self._added(states, self._mlp_post_norm(changed))


class Parallel(_Layer):
    """See Arrangement."""

    def __init__(self, weights: Weights, attention: Attention, layer: int) -> None:
        super().__init__(weights, attention, layer)
        self._attention_norm = self._norm(Role.ATTENTION_NORM)

    def __call__(self, states: Tensor, turn: Turn | None) -> Tensor:
        """See LayerFunction."""
        normed = self._attention_norm(states)
        return self._added(states, self._sum(self._attend(normed, turn) + self._mlp(normed)))


class ParallelNorms(PreNorm):
    """See Arrangement."""

    def __call__(self, states: Tensor, turn: Turn | None) -> Tensor:
        """See LayerFunction."""
        attended = self._attend(self._attention_norm(states), turn)
        return self._added(states, self._sum(attended + self._mlp(self._mlp_norm(states))))


ARRANGEMENTS: Mapping[Arrangement, Callable[[Weights, Attention, int], LayerFunction]] = {
    Arrangement.PRE_NORM: PreNorm,
    Arrangement.POST_NORM: PostNorm,
    Arrangement.SANDWICH: Sandwich,
    Arrangement.PARALLEL: Parallel,
    Arrangement.PARALLEL_NORMS: ParallelNorms,
}
