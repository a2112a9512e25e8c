"""The Llama shape: its numbers and names, which Mistral, Qwen2 and Qwen3 share, and Llama itself.

Source: Touvron et al., LLaMA (2023).
"""

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Any

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, as_in_hub
from trivet.backends.llm.families.hub import SLIDING, HeadSizes, activation, layer_types
from trivet.backends.llm.families.kinds import (
    Activation,
    GatedMlp,
    GroupedAttention,
    Layer,
    RmsNorm,
    Rope,
    RopeScaling,
)
from trivet.backends.llm.families.names import Names, Role, weight
from trivet.backends.llm.families.rope import RopeRules, hub_positions, hub_rope
from trivet.backends.llm.families.stretching import most_positions

_HUB = "model.layers.{layer}."


def llama_names(*, gguf_interleaves: bool = False) -> Names:
    """Of a model of the Llama shape."""
    attention, mlp = f"{_HUB}self_attn.", f"{_HUB}mlp."
    return Names(
        (
            weight("model.embed_tokens", Role.EMBEDDING),
            weight(f"{_HUB}input_layernorm", Role.ATTENTION_NORM),
            weight(f"{attention}q_proj", Role.QUERY, gguf_interleaves=gguf_interleaves),
            weight(f"{attention}k_proj", Role.KEY, gguf_interleaves=gguf_interleaves),
            weight(f"{attention}v_proj", Role.VALUE),
            weight(f"{attention}q_norm", Role.QUERY_NORM),
            weight(f"{attention}k_norm", Role.KEY_NORM),
            weight(f"{attention}o_proj", Role.OUTPUT),
            weight(f"{_HUB}post_attention_layernorm", Role.MLP_NORM),
            weight(f"{mlp}gate_proj", Role.GATE),
            weight(f"{mlp}up_proj", Role.UP),
            weight(f"{mlp}down_proj", Role.DOWN),
            weight("model.norm", Role.FINAL_NORM),
            weight("lm_head", Role.HEAD),
        ),
        needless=("rotary_emb.inv_freq", ".k_scale", ".v_scale", ".output_scale"),
        cache_scales=f"{attention}{{kind}}_scale",
        rope_divisors="rope_freqs.weight",
    )


LLAMA_NAMES = llama_names(gguf_interleaves=True)
HALVES_NAMES = llama_names()


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The numbers of a model of the Llama shape, whose layers are alike but for their windows."""

    architecture: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocabulary_size: int
    max_positions: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    stretched_positions: int = 0
    sliding_window: int = 0
    windows: tuple[int, ...] = ()
    """Of each layer, where they differ."""
    activation: Activation = Activation.SILU
    has_mlp_bias: bool = False
    has_qkv_bias: bool = False
    has_output_bias: bool = False
    has_qk_norm: bool = False
    ties_embeddings: bool = False
    names: Names = HALVES_NAMES

    def config(self) -> LlmConfig:
        """The layers of these numbers."""
        norm = RmsNorm(self.rms_norm_eps)
        attention = GroupedAttention(
            self.num_heads,
            self.num_kv_heads,
            self.head_dim,
            rope=Rope(self.rope_theta, self.rope_scaling),
            window=self.sliding_window,
            head_norm=norm if self.has_qk_norm else None,
            has_qkv_bias=self.has_qkv_bias,
            has_output_bias=self.has_output_bias,
        )
        mlp = GatedMlp(self.intermediate_size, self.activation, self.has_mlp_bias)
        windows = self.windows or (self.sliding_window,) * self.num_layers
        kinds = {window: replace(attention, window=window) for window in windows}
        return LlmConfig(
            architecture=self.architecture,
            names=self.names,
            hidden_size=self.hidden_size,
            vocabulary_size=self.vocabulary_size,
            max_positions=self.max_positions,
            stretched_positions=self.stretched_positions,
            layers=tuple(Layer(kinds[window], mlp, norm) for window in windows),
            norm=norm,
            ties_embeddings=self.ties_embeddings,
        )


def hub_shape(
    config: Described, architecture: str, rope_rules: RopeRules | None = None, **own: Any
) -> LlamaShape:
    """The numbers in a config.json that families share; `own`: fields that a family reads itself.
    Raises LoadFailed."""
    heads = HeadSizes.of(config)
    rope = hub_rope(config, heads.head_dim, rope_rules)
    return LlamaShape(
        architecture=architecture,
        hidden_size=config.size("hidden_size"),
        num_layers=config.size("num_hidden_layers"),
        num_heads=heads.num_heads,
        num_kv_heads=heads.num_kv_heads,
        head_dim=heads.head_dim,
        intermediate_size=config.size("intermediate_size"),
        vocabulary_size=config.size("vocab_size"),
        max_positions=hub_positions(config, rope),
        stretched_positions=most_positions([rope], config.size("max_position_embeddings")),
        rms_norm_eps=config.number("rms_norm_eps"),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        activation=activation(config),
        ties_embeddings=config.flag("tie_word_embeddings", default=False),
        **own,
    )


def one_window(config: Described, default: int | None = None) -> int:
    """The window of all layers, 0 for none, by a config.json; `default`: where it does not say."""
    return config.size("sliding_window", 0) if "sliding_window" in config else default or 0


def some_windows(config: Described) -> tuple[int, ...]:
    """Qwen's windows of each layer, 0 for none, by a config.json. Raises LoadFailed."""
    num_layers = config.size("num_hidden_layers")
    if not config.flag("use_sliding_window", default=False):
        return (0,) * num_layers
    window = one_window(config, 4096)
    first = config.get("max_window_layers", 28)
    default = [
        SLIDING if window and layer >= first else "full_attention" for layer in range(num_layers)
    ]
    return tuple(window if word == SLIDING else 0 for word in layer_types(config, default))


def gguf_shape(
    metadata: Described,
    tensor_names: Container[str],
    architecture: str,
    names: Names = HALVES_NAMES,
) -> LlamaShape:
    """The numbers in GGUF metadata; what a layer has beside its matrices, the tensors tell. Raises
    LoadFailed."""
    config = as_in_hub(metadata, tensor_names, architecture, GgufKeys())
    return hub_shape(
        config,
        architecture,
        names=names,
        sliding_window=one_window(config),
        has_qkv_bias="blk.0.attn_q.bias" in tensor_names,
        has_output_bias="blk.0.attn_output.bias" in tensor_names,
        has_qk_norm="blk.0.attn_q_norm.weight" in tensor_names,
    )


def _from_hub(config: Described) -> LlmConfig:
    has_bias = config.flag("attention_bias", default=False)
    return hub_shape(
        config,
        "llama",
        names=LLAMA_NAMES,
        has_mlp_bias=config.flag("mlp_bias", default=False),
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
    ).config()


def _from_gguf(metadata: Described, tensor_names: Container[str]) -> LlmConfig:
    return gguf_shape(metadata, tensor_names, "llama", LLAMA_NAMES).config()


LLAMA = Family("llama", "LlamaForCausalLM", _from_hub, _from_gguf)
