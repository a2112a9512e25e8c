"""The weights of a layer's parts, by kind: what all implementations read them with. Matrices that
read the same input are one."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trivet.backends.llm.families.kinds import (
    ExpertMlp,
    GatedMlp,
    GroupedAttention,
    LayerNorm,
    Norm,
    NormSpan,
    PlainMlp,
    Scoring,
)
from trivet.backends.llm.families.names import Role
from trivet.backends.llm.matrices.matrix import Multiplied
from trivet.backends.llm.weights.taking import Weights


@dataclass(frozen=True, slots=True)
class NormWeights:
    """Of a norm of some size."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class AttentionWeights:
    """Of GroupedAttention."""

    qkv: Multiplied
    """[(heads + 2 key/value heads) * head size, hidden]."""
    qkv_bias: Tensor | None
    query_norm: Tensor | None
    """[head size]; [heads, head size] where each has its own; [heads * head size] of all as one."""
    key_norm: Tensor | None
    query_norm_bias: Tensor | None
    key_norm_bias: Tensor | None
    output: Multiplied
    """[hidden, heads * head size]."""
    output_bias: Tensor | None
    sinks: Tensor | None
    """[heads]."""


@dataclass(frozen=True, slots=True)
class LatentWeights:
    """Of GroupedAttention with a Latent."""

    queries: Multiplied
    """[heads * (rotated + plain), hidden or query rank]: of each head what is rotated, first."""
    query_down: Multiplied | None
    """[query rank, hidden]."""
    query_down_bias: Tensor | None
    query_norm: NormWeights | None
    latent: Multiplied
    """[rotated + rank, hidden]: what is rotated, first."""
    latent_bias: Tensor | None
    latent_norm: NormWeights
    """[rank]."""
    keys: Tensor
    """[heads, plain, rank]: what brings queries to the latent, which would make keys of it."""
    values: Tensor
    """[heads, rank, value size]."""
    output: Multiplied
    """[hidden, heads * value size]."""
    output_bias: Tensor | None


@dataclass(frozen=True, slots=True)
class MlpWeights:
    """Of a GatedMlp or a PlainMlp."""

    inner: Multiplied
    """[2 * intermediate, hidden], the gate first; without a gate [intermediate, hidden]."""
    inner_bias: Tensor | None
    down: Multiplied
    """[hidden, intermediate]."""
    down_bias: Tensor | None


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """Of an ExpertMlp."""

    router: Multiplied
    """[experts, hidden]."""
    router_bias: Tensor | None
    correction: Tensor | None
    """float32 [experts]: of a router's scores, where it has sigmoids."""
    experts: list[MlpWeights]
    shared: MlpWeights | None
    shared_share: Multiplied | None
    """[1, hidden]."""


def take_norm(weights: Weights, kind: Norm, role: Role, layer: int = 0) -> NormWeights:
    """Of a norm over the hidden size."""
    return _norm(weights, kind, role, (weights.whole.hidden_size,), layer)


def _norm(
    weights: Weights, kind: Norm, role: Role, shape: tuple[int, ...], layer: int
) -> NormWeights:
    if isinstance(kind, LayerNorm):
        return NormWeights(
            weights.vector(role, shape, layer) if kind.has_weight else weights.ones(shape),
            weights.vector(role, shape, layer, "bias") if kind.has_bias else None,
        )
    return NormWeights(weights.vector(role, shape, layer), None)


def take_attention(weights: Weights, layer: int) -> AttentionWeights:
    """Of a layer's attention. Raises LoadFailed."""
    kind, hidden = weights.whole.layers[layer].attention, weights.whole.hidden_size
    output = {Role.OUTPUT: hidden}
    query, key = (
        _head_norm(weights, kind, role, layer) for role in (Role.QUERY_NORM, Role.KEY_NORM)
    )
    return AttentionWeights(
        qkv=weights.matrix(kind.outputs, hidden, layer),
        qkv_bias=weights.bias(kind.outputs, layer) if kind.has_qkv_bias else None,
        query_norm=query.weight if query else None,
        key_norm=key.weight if key else None,
        query_norm_bias=query.bias if query else None,
        key_norm_bias=key.bias if key else None,
        output=weights.matrix(output, kind.outputs[Role.QUERY], layer),
        output_bias=weights.bias(output, layer) if kind.has_output_bias else None,
        sinks=weights.of_heads(Role.SINKS, kind.num_heads, layer) if kind.has_sinks else None,
    )


def take_latent(weights: Weights, layer: int) -> LatentWeights:
    """Of a layer's latent attention. Raises LoadFailed."""
    kind, hidden = weights.whole.layers[layer].attention, weights.whole.hidden_size
    latent = kind.latent
    assert latent is not None
    outputs = kind.outputs
    query, own = ({role: outputs[role]} for role in (Role.QUERY, Role.LATENT))
    down, output = {Role.QUERY_DOWN: latent.query_rank}, {Role.OUTPUT: hidden}
    is_small, has_bias = bool(latent.query_rank), kind.has_qkv_bias
    each = latent.plain_size + latent.value_size
    up = weights.dense({Role.LATENT_UP: kind.num_heads * each}, latent.rank, layer)
    keys, values = torch.split(
        up.view(-1, each, latent.rank), [latent.plain_size, latent.value_size], dim=1
    )
    down_norm = Role.QUERY_DOWN_NORM, (latent.query_rank,), layer
    return LatentWeights(
        queries=weights.matrix(query, latent.query_rank or hidden, layer),
        query_down=weights.matrix(down, hidden, layer) if is_small else None,
        query_down_bias=weights.bias(down, layer) if is_small and has_bias else None,
        query_norm=_norm(weights, latent.norm, *down_norm) if is_small else None,
        latent=weights.matrix(own, hidden, layer),
        latent_bias=weights.bias(own, layer) if has_bias else None,
        latent_norm=_norm(weights, latent.norm, Role.LATENT_NORM, (latent.rank,), layer),
        keys=keys.contiguous(),
        values=values.transpose(1, 2).contiguous(),
        output=weights.matrix(output, kind.num_heads * latent.value_size, layer),
        output_bias=weights.bias(output, layer) if kind.has_output_bias else None,
    )


def _head_norm(
    weights: Weights, kind: GroupedAttention, role: Role, layer: int
) -> NormWeights | None:
    if kind.head_norm is None:
        return None
    count = kind.num_heads if role is Role.QUERY_NORM else kind.num_kv_heads
    shapes = {
        NormSpan.HEAD: (kind.head_dim,),
        NormSpan.OWN: (count, kind.head_dim),
        NormSpan.ALL: (count * kind.head_dim,),
    }
    return _norm(weights, kind.head_norm, role, shapes[kind.norm_span], layer)


def take_mlp(weights: Weights, layer: int) -> MlpWeights:
    """Of a layer's dense MLP. Raises LoadFailed."""
    kind = weights.whole.layers[layer].mlp
    assert not isinstance(kind, ExpertMlp)
    return _mlp(weights, kind, kind.outputs, Role.DOWN, layer)


def take_experts(weights: Weights, layer: int) -> ExpertWeights:
    """Of a layer's mixture of experts. Raises LoadFailed."""
    kind, hidden = weights.whole.layers[layer].mlp, weights.whole.hidden_size
    assert isinstance(kind, ExpertMlp)
    shared = kind.shared
    inner = {
        role: shared.intermediate_size for role in (Role.SHARED_GATE, Role.SHARED_UP) if shared
    }
    return ExpertWeights(
        router=weights.matrix(router := {Role.ROUTER: kind.num_experts}, hidden, layer),
        router_bias=weights.bias(router, layer) if kind.has_router_bias else None,
        correction=_correction(weights, kind, layer),
        experts=[
            _mlp(weights, kind.expert, kind.outputs, Role.EXPERT_DOWN, layer, expert)
            for expert in range(kind.num_experts)
        ],
        shared=_mlp(weights, shared, inner, Role.SHARED_DOWN, layer) if shared else None,
        shared_share=(
            weights.matrix({Role.SHARED_SHARE: 1}, hidden, layer)
            if shared and kind.has_share
            else None
        ),
    )


def _correction(weights: Weights, kind: ExpertMlp, layer: int) -> Tensor | None:
    if kind.scoring is not Scoring.SIGMOID:
        return None
    return weights.vector(Role.CORRECTION, (kind.num_experts,), layer)


def _mlp(
    weights: Weights,
    kind: GatedMlp | PlainMlp,
    outputs: Mapping[Role, int],
    down_role: Role,
    layer: int,
    expert: int = 0,
) -> MlpWeights:
    hidden = weights.whole.hidden_size
    down = {down_role: hidden}
    return MlpWeights(
        inner=weights.matrix(outputs, hidden, layer, expert),
        inner_bias=weights.bias(outputs, layer, expert) if kind.has_bias else None,
        down=weights.matrix(down, kind.intermediate_size, layer, expert),
        down_bias=weights.bias(down, layer, expert) if kind.has_bias else None,
    )
