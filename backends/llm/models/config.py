"""The numbers of a Llama-shaped model, from a Hugging Face config.json or from GGUF metadata."""

import math
from collections.abc import Container, Mapping
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
    has_output_bias: bool = False
    """Of attention's output projection."""
    has_qk_norm: bool = False
    ties_embeddings: bool = False

    @property
    def attention_scale(self) -> float:
        """What scores are multiplied by."""
        return 1 / math.sqrt(self.head_dim)


class Described(dict[str, Any]):
    """What a file says of its model. Raises LoadFailed for what it should say and does not."""

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        super().__init__(values)
        self._source = source

    def __missing__(self, name: str) -> Any:
        raise LoadFailed(f"{self._source} has no '{name}', which the model needs")


def from_hub(values: Mapping[str, Any]) -> LlmConfig:
    """The config of a Hugging Face folder. Raises LoadFailed for what is not supported."""
    config = Described(values, "config.json")
    name = (config.get("architectures") or ["?"])[0]
    if name not in LLAMA_SHAPED:
        raise LoadFailed(
            f"config.json names the architecture '{name}'; supported are {sorted(LLAMA_SHAPED)}"
        )
    architecture = LLAMA_SHAPED[name]
    _refuse_variants(config)
    rope = config.get("rope_parameters") or {}
    num_heads = config["num_attention_heads"]
    has_bias = architecture in ("llama", "qwen3") and bool(config.get("attention_bias"))
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
        sliding_window=_sliding_window(architecture, config),
        has_qkv_bias=has_bias or architecture == "qwen2",
        has_output_bias=has_bias,
        has_qk_norm=architecture == "qwen3",
        ties_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def _refuse_variants(config: Described) -> None:
    activation = config.get("hidden_act") or "silu"
    if activation != "silu":
        raise LoadFailed(f"config.json has hidden_act '{activation}'; only 'silu' is supported")
    _refuse_quantisations(config.get("quantization_config") or {})
    rope = config.get("rope_parameters") or {}
    rotated = rope.get("partial_rotary_factor", config.get("partial_rotary_factor")) or 1.0
    if rotated != 1.0:
        raise LoadFailed(
            f"config.json has partial_rotary_factor {rotated}; models that rotate a part of each "
            "head only are not supported"
        )


def _refuse_quantisations(given: Mapping[str, Any]) -> None:
    """Which files of 8 bits can be read: e4m3 with a scale for a matrix, for each of its rows or
    for each of its blocks."""
    method = given.get("quant_method") or "fp8"
    kind = given.get("format") or "float-quantized"
    if method not in ("fp8", "compressed-tensors") or kind != "float-quantized":
        raise LoadFailed(
            f"config.json has quant_method '{method}' of format '{kind}'; 'fp8', and "
            "'compressed-tensors' of format 'float-quantized', are supported"
        )
    scale_blocks(given)


def scale_blocks(given: Mapping[str, Any]) -> tuple[int, int] | None:
    """How many rows and columns of an 8-bit matrix share a scale, by config.json's
    `quantization_config`; None where a whole matrix or each row has one. Raises LoadFailed."""
    size = given.get("weight_block_size")
    for group in (given.get("config_groups") or {}).values():
        size = size or (group.get("weights") or {}).get("block_structure")
    if not size:
        return None
    if (
        isinstance(size, list)
        and len(size) == len(("rows", "columns"))
        and all(isinstance(part, int) and part > 0 for part in size)
    ):
        return size[0], size[1]
    raise LoadFailed(
        f"config.json has weight_block_size {size}; it must be two whole numbers above 0, the rows "
        "and columns that share a scale, such as [128, 128]"
    )


def _sliding_window(architecture: str, config: Described) -> int:
    if not config.get("use_sliding_window", architecture == "mistral"):
        return 0
    window = config.get("sliding_window") or 0
    kinds = set(config.get("layer_types") or ())
    if not kinds and architecture != "mistral":
        first = config.get("max_window_layers", config["num_hidden_layers"])
        kinds = {
            "sliding_attention" if layer >= first else "full_attention"
            for layer in range(config["num_hidden_layers"])
        }
    if window and len(kinds) > 1:
        raise LoadFailed(
            f"config.json gives a sliding window of {window} tokens to some layers only; all or "
            "none is supported"
        )
    return 0 if kinds == {"full_attention"} else window


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


def from_gguf(metadata: Described, tensor_names: Container[str]) -> LlmConfig:
    """The config in GGUF metadata. Raises LoadFailed for what is not supported."""
    architecture = metadata.get("general.architecture", "?")
    if architecture not in LLAMA_SHAPED.values():
        raise LoadFailed(
            f"the GGUF file's architecture is '{architecture}'; supported are "
            f"{sorted(LLAMA_SHAPED.values())}"
        )

    def needed(name: str) -> Any:
        return metadata[f"{architecture}.{name}"]

    def value(name: str, default: Any) -> Any:
        return metadata.get(f"{architecture}.{name}", default)

    num_heads = needed("attention.head_count")
    hidden_size = needed("embedding_length")
    head_dim = value("attention.key_length", hidden_size // num_heads)
    if value("rope.dimension_count", head_dim) != head_dim:
        raise LoadFailed("models that rotate a part of each head only are not supported")
    kind = value("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise LoadFailed(f"rope scaling '{kind}' is not supported in GGUF files; linear is")
    scaling = RopeScaling("linear", needed("rope.scaling.factor")) if kind == "linear" else None
    return LlmConfig(
        architecture=architecture,
        hidden_size=hidden_size,
        num_layers=needed("block_count"),
        num_heads=num_heads,
        num_kv_heads=value("attention.head_count_kv", num_heads),
        head_dim=head_dim,
        intermediate_size=needed("feed_forward_length"),
        vocabulary_size=len(metadata["tokenizer.ggml.tokens"]),
        max_positions=needed("context_length"),
        rms_norm_eps=needed("attention.layer_norm_rms_epsilon"),
        rope_theta=value("rope.freq_base", 10_000.0),
        rope_scaling=scaling,
        sliding_window=value("attention.sliding_window", 0),
        has_qkv_bias="blk.0.attn_q.bias" in tensor_names,
        has_output_bias="blk.0.attn_output.bias" in tensor_names,
        has_qk_norm="blk.0.attn_q_norm.weight" in tensor_names,
        ties_embeddings="output.weight" not in tensor_names,
    )
