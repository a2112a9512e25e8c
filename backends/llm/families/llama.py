"""The Llama shape: its numbers and names, which Mistral, Qwen2 and Qwen3 share, and Llama itself.

Source: Touvron et al., LLaMA (2023).
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.kinds import (
    GatedMlp,
    GroupedAttention,
    Layer,
    RmsNorm,
    Rope,
    RopeScaling,
)
from trivet.backends.llm.families.names import Names, Role, Share, WeightName
from trivet.backends.llm.families.rope import gguf_rope, hub_rope

_HUB = "model.layers.{layer}."
_GGUF = "blk.{layer}."


def llama_names(*, gguf_interleaves: bool = False) -> Names:
    """Of a model of the Llama shape."""
    attention, mlp = f"{_HUB}self_attn.", f"{_HUB}mlp."
    return Names(
        (
            WeightName((Role.EMBEDDING,), "model.embed_tokens", "token_embd", Share.TOKENS),
            WeightName((Role.ATTENTION_NORM,), f"{_HUB}input_layernorm", f"{_GGUF}attn_norm"),
            WeightName((Role.QUERY,), f"{attention}q_proj", f"{_GGUF}attn_q", Share.HEADS,
                       gguf_interleaves=gguf_interleaves),
            WeightName((Role.KEY,), f"{attention}k_proj", f"{_GGUF}attn_k", Share.HEADS,
                       gguf_interleaves=gguf_interleaves),
            WeightName((Role.VALUE,), f"{attention}v_proj", f"{_GGUF}attn_v", Share.HEADS),
            WeightName((Role.QUERY_NORM,), f"{attention}q_norm", f"{_GGUF}attn_q_norm"),
            WeightName((Role.KEY_NORM,), f"{attention}k_norm", f"{_GGUF}attn_k_norm"),
            WeightName((Role.OUTPUT,), f"{attention}o_proj", f"{_GGUF}attn_output", Share.INPUTS),
            WeightName((Role.MLP_NORM,), f"{_HUB}post_attention_layernorm", f"{_GGUF}ffn_norm"),
            WeightName((Role.GATE,), f"{mlp}gate_proj", f"{_GGUF}ffn_gate", Share.OUTPUTS),
            WeightName((Role.UP,), f"{mlp}up_proj", f"{_GGUF}ffn_up", Share.OUTPUTS),
            WeightName((Role.DOWN,), f"{mlp}down_proj", f"{_GGUF}ffn_down", Share.INPUTS),
            WeightName((Role.FINAL_NORM,), "model.norm", "output_norm"),
            WeightName((Role.HEAD,), "lm_head", "output", Share.TOKENS),
        ),
        needless=("rotary_emb.inv_freq", ".k_scale", ".v_scale", ".output_scale"),
        cache_scales=f"{attention}{{kind}}_scale",
        rope_divisors="rope_freqs.weight",
    )  # fmt: skip


LLAMA_NAMES = llama_names(gguf_interleaves=True)
HALVES_NAMES = llama_names()


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The numbers of a model of the Llama shape, whose layers are all alike."""

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
    sliding_window: int = 0
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
        layer = Layer(attention, GatedMlp(self.intermediate_size), norm)
        return LlmConfig(
            architecture=self.architecture,
            names=self.names,
            hidden_size=self.hidden_size,
            vocabulary_size=self.vocabulary_size,
            max_positions=self.max_positions,
            layers=(layer,) * self.num_layers,
            norm=norm,
            ties_embeddings=self.ties_embeddings,
        )


def hub_shape(config: Described, architecture: str, **own: Any) -> LlamaShape:
    """The numbers in a config.json that families share; `own`: fields that a family reads itself.
    Raises LoadFailed."""
    _refuse_variants(config)
    rope = hub_rope(config)
    num_heads = config["num_attention_heads"]
    return LlamaShape(
        architecture=architecture,
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=num_heads,
        num_kv_heads=config.get("num_key_value_heads") or num_heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // num_heads,
        intermediate_size=config["intermediate_size"],
        vocabulary_size=config["vocab_size"],
        max_positions=config["max_position_embeddings"],
        rms_norm_eps=config["rms_norm_eps"],
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        ties_embeddings=bool(config.get("tie_word_embeddings", False)),
        **own,
    )


def _refuse_variants(config: Described) -> None:
    activation = config.get("hidden_act") or "silu"
    if activation != "silu":
        raise LoadFailed(f"config.json has hidden_act '{activation}'; only 'silu' is supported")
    if config.get("mlp_bias"):
        raise LoadFailed("config.json has mlp_bias true; biases of the MLP are not supported")


def sliding_window(config: Described, *, is_default: bool = False) -> int:
    """A config.json's window of attention, 0 for none; `is_default`: whether one is used where the
    file does not say. Raises LoadFailed where some layers have one only."""
    if not config.get("use_sliding_window", is_default):
        return 0
    window: int = config.get("sliding_window") or 0
    kinds = set(config.get("layer_types") or ())
    if not kinds and not is_default:
        num_layers = config["num_hidden_layers"]
        first = config.get("max_window_layers", num_layers)
        kinds = {
            "sliding_attention" if layer >= first else "full_attention"
            for layer in range(num_layers)
        }
    if window and len(kinds) > 1:
        raise LoadFailed(
            f"config.json gives a sliding window of {window} tokens to some layers only; all or "
            "none is supported"
        )
    return 0 if kinds == {"full_attention"} else window


def gguf_shape(
    metadata: Described,
    tensor_names: Container[str],
    architecture: str,
    names: Names = HALVES_NAMES,
) -> LlamaShape:
    """The numbers in GGUF metadata; what a layer has beside its matrices, the tensors tell. Raises
    LoadFailed."""

    def needed(name: str) -> Any:
        return metadata[f"{architecture}.{name}"]

    def value(name: str, default: Any) -> Any:
        return metadata.get(f"{architecture}.{name}", default)

    num_heads = needed("attention.head_count")
    hidden_size = needed("embedding_length")
    head_dim = value("attention.key_length", hidden_size // num_heads)
    rope = gguf_rope(metadata, architecture, head_dim)
    return LlamaShape(
        architecture=architecture,
        names=names,
        hidden_size=hidden_size,
        num_layers=needed("block_count"),
        num_heads=num_heads,
        num_kv_heads=value("attention.head_count_kv", num_heads),
        head_dim=head_dim,
        intermediate_size=needed("feed_forward_length"),
        vocabulary_size=len(metadata["tokenizer.ggml.tokens"]),
        max_positions=needed("context_length"),
        rms_norm_eps=needed("attention.layer_norm_rms_epsilon"),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        sliding_window=value("attention.sliding_window", 0),
        has_qkv_bias="blk.0.attn_q.bias" in tensor_names,
        has_output_bias="blk.0.attn_output.bias" in tensor_names,
        has_qk_norm="blk.0.attn_q_norm.weight" in tensor_names,
        ties_embeddings="output.weight" not in tensor_names,
    )


def _from_hub(config: Described) -> LlmConfig:
    has_bias = bool(config.get("attention_bias"))
    return hub_shape(
        config,
        "llama",
        names=LLAMA_NAMES,
        sliding_window=sliding_window(config),
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
    ).config()


def _from_gguf(metadata: Described, tensor_names: Container[str]) -> LlmConfig:
    return gguf_shape(metadata, tensor_names, "llama", LLAMA_NAMES).config()


LLAMA = Family("llama", "LlamaForCausalLM", _from_hub, _from_gguf)
