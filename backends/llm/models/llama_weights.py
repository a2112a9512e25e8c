"""The weights of the Llama shape, taken from a file's names; rotary tables.

Weight names are Hugging Face's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.models.config import LlmConfig, RopeScaling
from trivet.backends.llm.models.linear import FP8, Weight

ROPE_DIVISORS = "rope_freqs.weight"
"""GGUF's name of what divides the rotary frequencies: Llama 3's scaling, worked out in advance."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer. Matrices that read the same input are one."""

    input_norm: Tensor
    qkv: Weight
    """[(heads + 2 key/value heads) * head size, hidden]."""
    qkv_bias: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Weight
    output_bias: Tensor | None
    post_norm: Tensor
    gate_up: Weight
    """[2 * intermediate, hidden]."""
    down: Weight


@dataclass(frozen=True, slots=True)
class LlamaWeights:
    """A whole model."""

    embedding: Tensor
    """[vocabulary, hidden]."""
    layers: list[Layer]
    norm: Tensor
    head: Weight
    """[vocabulary, hidden]."""
    cosines: Tensor
    """[positions, head size]."""
    sines: Tensor


def read_weights(
    config: LlmConfig,
    weights: Mapping[str, Tensor],
    *,
    quantises: bool = False,
    rotary_dtype: torch.dtype | None = None,
) -> LlamaWeights:
    """`quantises`: the layers' matrices become 8-bit numbers as they are read. `rotary_dtype`: None
    for the weights'. Raises LoadFailed when a weight is missing, of the wrong shape or not known.
    """
    take = _Taker(weights, quantises=quantises)
    shape = (config.vocabulary_size, config.hidden_size)
    embedding = take("model.embed_tokens.weight", *shape)
    divisors = weights.get(ROPE_DIVISORS)
    cosines, sines = rotary_table(config, rotary_dtype or embedding.dtype, divisors)
    read = LlamaWeights(
        embedding,
        [_layer(config, take, index) for index in range(config.num_layers)],
        take("model.norm.weight", config.hidden_size),
        Weight(embedding if config.ties_embeddings else take("lm_head.weight", *shape)),
        cosines.to(embedding.device),
        sines.to(embedding.device),
    )
    take.refuse_rest()
    return read


def _layer(config: LlmConfig, take: "_Taker", index: int) -> Layer:
    prefix = f"model.layers.{index}."
    hidden, inner = config.hidden_size, config.intermediate_size
    sizes = {
        "q": config.num_heads * config.head_dim,
        "k": config.num_kv_heads * config.head_dim,
        "v": config.num_kv_heads * config.head_dim,
    }
    attention, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
    qkv = [take.matrix(f"{attention}{name}_proj", size, hidden) for name, size in sizes.items()]
    bias = None
    if config.has_qkv_bias:
        parts = [take(f"{attention}{name}_proj.bias", size) for name, size in sizes.items()]
        bias = torch.cat(parts)
    norms: list[Tensor | None] = [None, None]
    if config.has_qk_norm:
        norms = [take(f"{attention}{name}_norm.weight", config.head_dim) for name in "qk"]
    return Layer(
        input_norm=take(f"{prefix}input_layernorm.weight", hidden),
        qkv=Weight.joined(qkv),
        qkv_bias=bias,
        query_norm=norms[0],
        key_norm=norms[1],
        output=take.matrix(f"{attention}o_proj", hidden, sizes["q"]),
        output_bias=take(f"{attention}o_proj.bias", hidden) if config.has_output_bias else None,
        post_norm=take(f"{prefix}post_attention_layernorm.weight", hidden),
        gate_up=Weight.joined([take.matrix(f"{mlp}{name}_proj", inner, hidden)
                               for name in ("gate", "up")]),
        down=take.matrix(f"{mlp}down_proj", hidden, inner),
    )  # fmt: skip


# Tied to the embedding where the config says so; used for the rotary table.
_NEEDLESS = {"lm_head.weight", ROPE_DIVISORS}
_NEEDLESS_ENDS = ("rotary_emb.inv_freq", ".k_scale", ".v_scale", ".output_scale")
"""The cache's scales are read where the cache is made."""


class _Taker:
    """Takes weights by name and checks their shapes."""

    def __init__(self, weights: Mapping[str, Tensor], *, quantises: bool) -> None:
        self._weights = weights
        self._taken: set[str] = set()
        self._quantises = quantises

    def __call__(self, name: str, *shape: int) -> Tensor:
        if name not in self._weights:
            raise LoadFailed(f"the model's files have no weight '{name}'")
        weight = self._weights[name]
        if tuple(weight.shape) != shape:
            raise LoadFailed(
                f"weight '{name}' is of shape {list(weight.shape)}; the config needs {list(shape)}"
            )
        self._taken.add(name)
        return weight

    def matrix(self, name: str, columns: int, depth: int) -> Weight:
        """A layer's matrix, with the scales of its 8-bit numbers if it has some."""
        data = self(f"{name}.weight", columns, depth)
        if data.dtype != FP8:
            weight = Weight(data)
            return weight.quantised() if self._quantises else weight
        scales = self._scale(f"{name}.weight_scale")
        if scales is None or scales.numel() not in (1, columns):
            raise LoadFailed(
                f"the 8-bit weight '{name}.weight' has no scale, or not one for all or for each of "
                f"its {columns} rows, in '{name}.weight_scale'"
            )
        # Rows to multiply get scales of their own at each step, at least as precise as the one
        # that a checkpoint was calibrated to.
        self._scale(f"{name}.input_scale")
        return Weight(data, scales.float().flatten().expand(columns).contiguous())

    def _scale(self, name: str) -> Tensor | None:
        if name not in self._weights:
            return None
        self._taken.add(name)
        return self._weights[name]

    def refuse_rest(self) -> None:
        """Raises LoadFailed for a weight that nothing took: without it the output is wrong."""
        rest = sorted(
            name for name in self._weights.keys() - self._taken
            if name not in _NEEDLESS and not name.endswith(_NEEDLESS_ENDS)
        )  # fmt: skip
        if rest:
            raise LoadFailed(
                f"the model's files have {len(rest)} weights that this architecture does not know, "
                f"'{rest[0]}' the first: the model is of another shape than its config says"
            )


def rotary_table(
    config: LlmConfig, dtype: torch.dtype, divisors: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cosines and sines for each position, [positions, head size]: halves repeat (GPT-NeoX)."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    if config.rope_scaling is not None:
        frequencies = _scaled(frequencies, config.rope_scaling)
    if divisors is not None:
        frequencies = frequencies / divisors.cpu()
    angles = torch.outer(torch.arange(config.max_positions, dtype=torch.float32), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _scaled(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    # Llama 3.1: low frequencies are divided, high ones kept, those between are interpolated.
    wavelengths = 2 * math.pi / frequencies
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = (scaling.original_positions / wavelengths - low) / (high - low)
    smooth = smooth.clamp(0, 1)
    return (1 - smooth) * frequencies / scaling.factor + smooth * frequencies
