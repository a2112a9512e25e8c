"""Norms in torch, by kind."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.families.kinds import LayerNorm, Norm, RmsNorm
from trivet.backends.llm.models.parts import NormWeights

NormFunction = Callable[[Tensor], Tensor]
"""[..., size] to the same."""


def make_norm(kind: Norm, weights: NormWeights) -> NormFunction:
    """A norm of its kind, over its last axis."""
    if isinstance(kind, RmsNorm):
        eps, weight = kind.eps, weights.weight
        return lambda states: rms_norm(states, weight, eps)
    assert isinstance(kind, LayerNorm)
    return lambda states: _layer_norm(states, weights, kind.eps)


def rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """In float32 whatever the weights are, as the models were trained; torch's own kernel is not.
    `weight`: of the last axis, or of the last two."""
    normed = functional.rms_norm(states.float(), weight.shape[-1:], eps=eps)
    return weight * normed.to(weight.dtype)


def _layer_norm(states: Tensor, weights: NormWeights, eps: float) -> Tensor:
    return functional.layer_norm(states, weights.weight.shape, weights.weight, weights.bias, eps)
