"""A model's weights as the compiled step reads them."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.families.kinds import (
    ExpertMlp,
    GatedMlp,
    GroupedAttention,
    Norm,
    NormSpan,
    PlainMlp,
    Rope,
    Scoring,
)
from trivet.backends.llm.matrices.matrix import Multiplied
from trivet.backends.llm.models.parts import (
    AttentionWeights,
    ExpertWeights,
    MlpWeights,
    NormWeights,
    take_attention,
    take_experts,
    take_mlp,
    take_norm,
)
from trivet.backends.llm.models.rotary import rotary_table
from trivet.backends.llm.native.adding import LayerPlaces
from trivet.backends.llm.native.kinds import ACTIVATIONS, NORMS, PARALLEL, norm_kind
from trivet.backends.llm.native.matrices import PackedMatrix
from trivet.backends.llm.native.packing import interleaved, numbers_of, pack, padded
from trivet.backends.llm.native.structures import CLayer, CMlp, CNorm, CRouter
from trivet.backends.llm.weights.taking import Weights

Dense = GatedMlp | PlainMlp


class Taken:
    """Takes a model's weights, part by part, and keeps what addresses point to."""

    def __init__(self, weights: Weights) -> None:
        """Raises LoadFailed, as all of it does, for what is missing or of another shape."""
        self._weights = weights
        self.kept: list[object] = []
        """What addresses point to."""
        self._tables: dict[tuple[Rope, int], tuple[int, int]] = {}
        self.places: list[LayerPlaces] = []
        """Where adapters may change each layer."""

    def address(self, tensor: Tensor | None) -> int | None:
        """Of a tensor that is kept from now on; null of none."""
        if tensor is None:
            return None
        self.kept.append(tensor)
        return tensor.data_ptr()

    def matrix(
        self, weights: Multiplied, *, is_gated: bool = False, is_in_order: bool = False
    ) -> int:
        """Of a product's weights."""
        return self.address_of(PackedMatrix(weights, is_gated=is_gated, is_in_order=is_in_order))

    def address_of(self, matrix: PackedMatrix) -> int:
        """Of one that is kept from now on."""
        self.kept.append(matrix)
        return ctypes.addressof(matrix.array)

    def bias(self, tensor: Tensor | None) -> int | None:
        """Of a product: filled up to whole panels."""
        return None if tensor is None else self.address(padded(tensor.to(torch.bfloat16)))

    def norm(self, kind: Norm, weights: NormWeights) -> CNorm:
        """In float32, with what a family adds to its weights."""
        weight = (weights.weight.float() + kind.offset).contiguous()
        bias = None if weights.bias is None else weights.bias.float().contiguous()
        return CNorm(norm_kind(kind), kind.eps, self.address(weight), self.address(bias))

    def layer(self, index: int, cache: KvCache) -> CLayer:
        """`cache`: whose part of this layer it reads and writes."""
        kind = self._weights.config.layers[index]
        heads, arrangement = kind.attention, kind.arrangement
        made = CLayer(
            heads=heads.num_heads, kv_heads=heads.num_kv_heads, head_dim=heads.head_dim,
            rotated=heads.rotary_size, window=heads.window,
            joins_heads=heads.norm_span is NormSpan.ALL, is_parallel=arrangement in PARALLEL,
            scale=heads.scale, score_cap=heads.score_cap, clip=heads.qkv_clip,
            multiplier=kind.residual_multiplier,
        )  # fmt: skip
        self._states(made, cache, index)
        if heads.slopes:
            made.slopes = self.address(torch.tensor(heads.slopes))
        if heads.rope is not None:
            made.cosines, made.sines = self._rotations(heads, heads.rope)
        for name, role in NORMS[arrangement].items():
            taken = take_norm(self._weights, kind.norm, role, index)
            setattr(made, name, self.norm(kind.norm, taken))
        attention = take_attention(self._weights, index)
        self._attention(made, heads, attention)
        if isinstance(kind.mlp, ExpertMlp):
            mlps = self._experts(made, kind.mlp, take_experts(self._weights, index))
            num_of_token = kind.mlp.num_active + made.router.has_shared
        else:
            mlps, num_of_token = [take_mlp(self._weights, index)], 1
            made.mlps = self._array([self._mlp(kind.mlp, mlps[0])])
        self.places.append(LayerPlaces.of(attention, mlps, num_of_token))
        return made

    def _states(self, made: CLayer, cache: KvCache, index: int) -> None:
        keys, values = cache.layers[index]
        made.keys, made.values = self.address(keys), self.address(values)
        if keys.dtype != cache.read_as:
            key_scale, value_scale = cache.scales[index]
            made.key_factor, made.value_factor = 1 / key_scale, 1 / value_scale
            made.scale *= key_scale

    def _rotations(self, heads: GroupedAttention, rope: Rope) -> tuple[int, int]:
        """Addresses of cosines and sines, once for all layers of the same."""
        key = rope, heads.head_dim
        if key not in self._tables:
            config = self._weights.config
            cosines, sines = rotary_table(
                heads, config.max_positions, torch.bfloat16, self._weights.rope_divisors()
            )
            self.kept += [cosines, sines]
            self._tables[key] = cosines.data_ptr(), sines.data_ptr()
        return self._tables[key]

    def _attention(self, made: CLayer, kind: GroupedAttention, weights: AttentionWeights) -> None:
        made.qkv = self.matrix(weights.qkv)
        made.qkv_bias = self.bias(weights.qkv_bias)
        made.output = self.matrix(weights.output)
        made.output_bias = self.bias(weights.output_bias)
        if kind.head_norm is None:
            return
        for name, count, weight, bias in (
            ("query_norm", kind.num_heads, weights.query_norm, weights.query_norm_bias),
            ("key_norm", kind.num_kv_heads, weights.key_norm, weights.key_norm_bias),
        ):
            assert weight is not None
            each = NormWeights(weight, bias)
            if kind.norm_span is NormSpan.HEAD:
                each = _for_each_head(each, count)
            setattr(made, name, self.norm(kind.head_norm, each))

    def _mlp(self, kind: Dense, weights: MlpWeights, *, is_of_experts: bool = False) -> CMlp:
        is_gated = isinstance(kind, GatedMlp)
        bias = weights.inner_bias
        if is_gated and bias is not None:
            bias = interleaved(bias)
        return CMlp(
            kind.intermediate_size, ACTIVATIONS.index(kind.activation), is_gated,
            self.matrix(weights.inner, is_gated=is_gated, is_in_order=is_of_experts),
            self.bias(bias),
            self.matrix(weights.down, is_in_order=is_of_experts), self.bias(weights.down_bias),
        )  # fmt: skip

    def _experts(self, made: CLayer, kind: ExpertMlp, weights: ExpertWeights) -> list[MlpWeights]:
        """Returns those of all MLPs, in the structure's order."""
        made.router = CRouter(
            kind.num_experts, kind.num_active, kind.scoring is Scoring.SIGMOID, kind.is_normalised,
            kind.num_groups, kind.num_active_groups, kind.num_telling, kind.multiplier,
            self.address(pack(padded(numbers_of(weights.router)))),
        )  # fmt: skip
        if weights.correction is not None:
            made.router.correction = self.address(weights.correction.float().contiguous())
        # All experts' products are one phase: nobody arranges rows for each of them.
        mlps = [self._mlp(kind.expert, each, is_of_experts=True) for each in weights.experts]
        taken = list(weights.experts)
        if kind.shared is not None and weights.shared is not None:
            mlps.append(self._mlp(kind.shared, weights.shared, is_of_experts=True))
            taken.append(weights.shared)
            made.router.has_shared = True
            if weights.shared_share is not None:
                made.router.shared = self.address(numbers_of(weights.shared_share).contiguous())
        made.mlps = self._array(mlps)
        return taken

    def _array(self, mlps: Sequence[CMlp]) -> object:
        array = (CMlp * len(mlps))(*mlps)
        self.kept.append(array)
        return array


def _for_each_head(weights: NormWeights, count: int) -> NormWeights:
    bias = None if weights.bias is None else weights.bias.expand(count, -1)
    return NormWeights(weights.weight.expand(count, -1), bias)
