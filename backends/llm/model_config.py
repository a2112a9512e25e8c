"""The numbers of a Llama-shaped model, from a Hugging Face config.json or from GGUF metadata."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trivet.backends.api import LoadFailed

LLAMA_SHAPED = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
"""Hugging Face's class to the architecture's name here, which is GGUF's too."""


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are changed for longer contexts: linear, or Llama 3's way."""

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192


@dataclass(frozen=True, slots=True)
class LlmConfig:
    """What the model class needs to know."""

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
    """Tokens that a token sees, itself included; 0: all."""
    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    ties_embeddings: bool = False

    @property
    def attention_scale(self) -> float:
        """What scores are multiplied by."""
        return 1 / math.sqrt(self.head_dim)


def from_hub(config: Mapping[str, Any]) -> LlmConfig:
    """The config of a Hugging Face folder. Raises LoadFailed for what is not supported."""
    name = (config.get("architectures") or ["?"])[0]
    if name not in LLAMA_SHAPED:
        raise LoadFailed(
            f"config.json names the architecture '{name}'; supported are {sorted(LLAMA_SHAPED)}"
        )
    architecture = LLAMA_SHAPED[name]
    rope = config.get("rope_parameters") or {}
    num_heads = config["num_attention_heads"]
    is_windowed = config.get("use_sliding_window", architecture == "mistral")
    return LlmConfig(
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
        rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
        rope_scaling=_scaling(rope if "rope_type" in rope else config.get("rope_scaling")),
        sliding_window=(config.get("sliding_window") or 0) if is_windowed else 0,
        has_qkv_bias=bool(config.get("attention_bias", architecture == "qwen2")),
        has_qk_norm=architecture == "qwen3",
        ties_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def _scaling(given: Mapping[str, Any] | None) -> RopeScaling | None:
    if not given:
        return None
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", float(given["factor"]))
    if kind == "llama3":
        return RopeScaling(
            "llama3",
            float(given["factor"]),
            float(given["low_freq_factor"]),
            float(given["high_freq_factor"]),
            int(given["original_max_position_embeddings"]),
        )
    raise LoadFailed(f"rope scaling '{kind}' is not supported; linear and llama3 are")


def from_gguf(metadata: Mapping[str, Any], *, has_output: bool) -> LlmConfig:
    """The config in GGUF metadata. Raises LoadFailed for what is not supported."""
    architecture = metadata.get("general.architecture", "?")
    if architecture not in LLAMA_SHAPED.values():
        raise LoadFailed(
            f"the GGUF file's architecture is '{architecture}'; supported are "
            f"{sorted(LLAMA_SHAPED.values())}"
        )

    def value(name: str, default: Any = None) -> Any:
        return metadata.get(f"{architecture}.{name}", default)

    num_heads = value("attention.head_count")
    hidden_size = value("embedding_length")
    head_dim = value("attention.key_length") or hidden_size // num_heads
    if value("rope.dimension_count", head_dim) != head_dim:
        raise LoadFailed("models that rotate a part of each head only are not supported")
    kind = value("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise LoadFailed(f"rope scaling '{kind}' is not supported in GGUF files; linear is")
    scaling = RopeScaling("linear", value("rope.scaling.factor")) if kind == "linear" else None
    return LlmConfig(
        architecture=architecture,
        hidden_size=hidden_size,
        num_layers=value("block_count"),
        num_heads=num_heads,
        num_kv_heads=value("attention.head_count_kv", num_heads),
        head_dim=head_dim,
        intermediate_size=value("feed_forward_length"),
        vocabulary_size=len(metadata["tokenizer.ggml.tokens"]),
        max_positions=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        rope_theta=value("rope.freq_base", 10_000.0),
        rope_scaling=scaling,
        sliding_window=value("attention.sliding_window", 0),
        has_qkv_bias=architecture == "qwen2",
        has_qk_norm=architecture == "qwen3",
        ties_embeddings=not has_output,
    )
