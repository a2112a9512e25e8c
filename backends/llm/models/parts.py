"""The weights of a layer's parts, by kind: what all implementations read them with. Matrices that
read the same input are one."""

from dataclasses import dataclass

from torch import Tensor

from trivet.backends.llm.families.kinds import LayerNorm, Mlp, Norm
from trivet.backends.llm.families.names import Role
from trivet.backends.llm.matrices.matrix import Matrix
from trivet.backends.llm.weights.taking import Weights


@dataclass(frozen=True, slots=True)
class NormWeights:
    """Of a norm of some size."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class AttentionWeights:
    """Of GroupedAttention."""

    qkv: Matrix
    """[(heads + 2 key/value heads) * head size, hidden]."""
    qkv_bias: Tensor | None
    query_norm: Tensor | None
    """[head size]."""
    key_norm: Tensor | None
    output: Matrix
    """[hidden, heads * head size]."""
    output_bias: Tensor | None


@dataclass(frozen=True, slots=True)
class MlpWeights:
    """Of a GatedMlp or a PlainMlp."""

    inner: Matrix
    """[2 * intermediate, hidden], the gate first; without a gate [intermediate, hidden]."""
    inner_bias: Tensor | None
    down: Matrix
    """[hidden, intermediate]."""
    down_bias: Tensor | None


def take_norm(weights: Weights, kind: Norm, role: Role, layer: int = 0) -> NormWeights:
    """Of a norm over the hidden size."""
    size = weights.whole.hidden_size
    has_bias = isinstance(kind, LayerNorm) and kind.has_bias
    return NormWeights(
        weights.vector(role, size, layer),
        weights.vector(role, size, layer, "bias") if has_bias else None,
    )


def take_attention(weights: Weights, layer: int) -> AttentionWeights:
    """Of a layer's attention. Raises LoadFailed."""
    kind, hidden = weights.whole.layers[layer].attention, weights.whole.hidden_size
    output = {Role.OUTPUT: hidden}
    norms: list[Tensor | None] = [None, None]
    if kind.head_norm is not None:
        roles = (Role.QUERY_NORM, Role.KEY_NORM)
        norms = [weights.vector(role, kind.head_dim, layer) for role in roles]
    return AttentionWeights(
        qkv=weights.matrix(kind.outputs, hidden, layer),
        qkv_bias=weights.bias(kind.outputs, layer) if kind.has_qkv_bias else None,
        query_norm=norms[0],
        key_norm=norms[1],
        output=weights.matrix(output, kind.outputs[Role.QUERY], layer),
        output_bias=weights.bias(output, layer) if kind.has_output_bias else None,
    )


def take_mlp(weights: Weights, layer: int) -> MlpWeights:
    """Of a layer's MLP. Raises LoadFailed."""
    kind: Mlp = weights.whole.layers[layer].mlp
    hidden, down = weights.whole.hidden_size, {Role.DOWN: weights.whole.hidden_size}
    return MlpWeights(
        inner=weights.matrix(kind.outputs, hidden, layer),
        inner_bias=weights.bias(kind.outputs, layer) if kind.has_bias else None,
        down=weights.matrix(down, kind.intermediate_size, layer),
        down_bias=weights.bias(down, layer) if kind.has_bias else None,
    )
