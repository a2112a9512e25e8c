"""Norms in torch, by kind."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.families.kinds import LayerNorm, Norm, RmsNorm
from trivet.backends.llm.models.parts import NormWeights

NormFunction = Callable[[Tensor], Tensor]
"""[..., size] to the same."""


def make_norm(kind: Norm, weights: NormWeights) -> NormFunction:
    """A norm of its kind, over the axes of its weights, which are the last."""
    eps, weight, bias = kind.eps, weights.weight, weights.bias
    if kind.offset:
        # Not rounded to what the weights are of: most differ little from the offset.
        weight = weight.float() + kind.offset
    if isinstance(kind, RmsNorm):
        return lambda states: rms_norm(states, weight, eps)
    assert isinstance(kind, LayerNorm)
    if weight.dim() == 1 and weight.dtype == weights.weight.dtype:
        return lambda states: functional.layer_norm(states, weight.shape, weight, bias, eps)
    return lambda states: _layer_norm(states, weight, bias, eps)


def rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """In float32 whatever the weights are, as the models were trained; torch's own kernel is not.
    `weight`: of the last axis, or of the last two, of which the last is normed."""
    normed = functional.rms_norm(states.float(), weight.shape[-1:], eps=eps)
    return (weight * normed.to(weight.dtype)).to(states.dtype)


def _layer_norm(states: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """With weights that torch's own does not take: of the last two axes, or of another type."""
    normed = functional.layer_norm(states.float(), weight.shape[-1:], eps=eps) * weight
    return (normed if bias is None else normed + bias).to(states.dtype)
