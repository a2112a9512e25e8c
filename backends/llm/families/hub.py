"""What families read alike from a config.json: heads, activations, kinds of layers, and the model
around its layers. What is not computed is refused, with key and value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described, NotComputed
from trivet.backends.llm.families.kinds import Activation, GroupedAttention, Layer, Norm
from trivet.backends.llm.families.names import Names
from trivet.backends.llm.families.rope import RopeRules, hub_positions, hub_rope
from trivet.backends.llm.families.stretching import most_positions

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "gelu": Activation.GELU,
    "gelu_python": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_accurate": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "quick_gelu": Activation.GELU_SIGMOID,
    "relu": Activation.RELU,
    "relu2": Activation.RELU_SQUARED,
}
"""By Hugging Face's words."""
SLIDING, FULL = "sliding_attention", "full_attention"


def activation(config: Described, name: str = "hidden_act", default: str = "silu") -> Activation:
    """Raises NotComputed."""
    word = config.get(name, default)
    if not isinstance(word, str) or word not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise NotComputed(f"config.json has {name} {word!r}; supported are {known}")
    return ACTIVATIONS[word]


@dataclass(frozen=True, slots=True)
class HeadSizes:
    """How many heads there are, and how large."""

    num_heads: int
    num_kv_heads: int
    head_dim: int

    @classmethod
    def of(cls, config: Described, *, num_kv_heads: int | None = None) -> "HeadSizes":
        """A config.json's; `num_kv_heads`: where it does not say, None for all. Raises
        LoadFailed."""
        num_heads = config.size("num_attention_heads")
        if "num_key_value_heads" in config or num_kv_heads is None:
            num_kv_heads = config.size("num_key_value_heads", num_heads)
        hidden = config.size("hidden_size")
        head_dim = config.size("head_dim", hidden // num_heads)
        if num_heads % num_kv_heads:
            raise LoadFailed(
                f"config.json has num_attention_heads {num_heads}, which is no multiple of "
                f"num_key_value_heads {num_kv_heads}"
            )
        return cls(num_heads, num_kv_heads, head_dim)


def hub_attention(
    config: Described, rules: RopeRules | None = None, *, num_kv_heads: int | None = None
) -> GroupedAttention:
    """With rotated heads, and biases in all products or in none (`attention_bias`): what a family
    has besides, it puts in. `num_kv_heads`: see HeadSizes. Raises LoadFailed."""
    heads = HeadSizes.of(config, num_kv_heads=num_kv_heads)
    has_bias = config.flag("attention_bias", default=False)
    return GroupedAttention(
        heads.num_heads,
        heads.num_kv_heads,
        heads.head_dim,
        rope=hub_rope(config, heads.head_dim, rules),
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
    )


def layer_types(config: Described, default: Sequence[str]) -> Sequence[str]:
    """Of each layer SLIDING or FULL; `default`: where the file does not say. Raises LoadFailed."""
    types = config.get("layer_types")
    if types is None:
        return default
    if not isinstance(types, list) or len(types) != len(default):
        raise LoadFailed(
            f"config.json has layer_types {str(types)[:64]}; it must be a list of "
            f"{len(default)}, one for each layer"
        )
    for index, word in enumerate(types):
        if word not in (SLIDING, FULL):
            raise NotComputed(
                f"config.json has layer_types with {word!r} for layer {index}; supported are "
                f"'{SLIDING}' and '{FULL}'"
            )
    return types


def every(pattern: int, num_layers: int) -> list[str]:
    """The types of layers of which every so-manieth sees all."""
    return [FULL if (layer + 1) % pattern == 0 else SLIDING for layer in range(num_layers)]


def hub_model(
    config: Described,
    architecture: str,
    names: Names,
    layers: Sequence[Layer],
    norm: Norm,
    *,
    ties: bool = False,
    **own: Any,
) -> LlmConfig:
    """The model around its layers; `ties`: whether embeddings and head are one where the file does
    not say; `own`: fields that a family reads itself. Raises LoadFailed."""
    if "max_positions" not in own:
        ropes = {layer.attention.rope for layer in layers}
        own["max_positions"] = min(hub_positions(config, rope) for rope in ropes)
        own["stretched_positions"] = most_positions(ropes, config.size("max_position_embeddings"))
    return LlmConfig(
        architecture=architecture,
        names=names,
        hidden_size=config.size("hidden_size"),
        vocabulary_size=config.size("vocab_size"),
        layers=tuple(layers),
        norm=norm,
        ties_embeddings=config.flag("tie_word_embeddings", default=ties),
        **own,
    )
