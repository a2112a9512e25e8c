"""Tiny random models of the families that the language-model backend computes, made by
`transformers`, and each key of their configs with other values than usual.

A family's declaration is one line of FAMILIES here; what is not declared is the same for all.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, pre_tokenizers
from torch import Tensor

VOCABULARY = 96
MISSING = object()
"""For a key that is left out."""
MAX_POSITIONS = 96
FULL, SLIDING = "full_attention", "sliding_attention"
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_POSITIONS,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 1,
}
GPT2_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": MAX_POSITIONS,
    "bos_token_id": None,
    "eos_token_id": 1,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "factor": 3.0}
DYNAMIC = {"rope_type": "dynamic", "factor": 3.0}
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 2.5],
        "long_factor": [2.0, 3.0, 4.0, 5.0], "original_max_position_embeddings": 64}  # fmt: skip
ROPES: tuple[dict[str, Any], ...] = (
    {"rope_theta": 300.0},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
    {"partial_rotary_factor": 0.5},
    {"rope_parameters": YARN | {"partial_rotary_factor": 0.5}},
    {"rope_scaling": {"type": "linear", "factor": 2.0}},
    *({"rope_parameters": scaling} for scaling in (LINEAR, DYNAMIC, LLAMA3, YARN, LONG)),
    {"rope_parameters": YARN | {"beta_fast": 8.0, "beta_slow": 2.0}},
    {"rope_parameters": YARN | {"truncate": False}},
    {"rope_parameters": YARN | {"attention_factor": 0.7}},
    {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 1.3}},
    {"rope_parameters": LONG | {"factor": 8.0}},
    {"rope_parameters": LONG | {"attention_factor": 1.4}},
)
"""Ways of rotary positions."""
LATENT_VARIANTS = (
    *ROPES, {"q_lora_rank": None}, {"attention_bias": True},
    {"attention_bias": True, "q_lora_rank": None},
    {"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}},
)  # fmt: skip
TYPED_ROPES: tuple[dict[str, Any], ...] = tuple(
    {"rope_parameters": {FULL: full, SLIDING: {"rope_type": "default", "rope_theta": 50.0}}}
    for full in (LINEAR, YARN | {"rope_theta": 900.0}, LLAMA3, DYNAMIC)
)
TYPES: tuple[dict[str, Any], ...] = (
    {"layer_types": [FULL, FULL]},
    {"layer_types": [FULL, SLIDING]},
    {"layer_types": [SLIDING, SLIDING]},
)
WINDOWS: tuple[dict[str, Any], ...] = tuple({"sliding_window": size} for size in (1, 7, 40, None))


@dataclass(frozen=True, slots=True)
class Made:
    """A family, as `transformers` has it."""

    name: str
    """Of its classes, without what they end with."""
    changes: dict[str, Any] = field(default_factory=dict)
    """What its small model has otherwise than all."""
    sizes: dict[str, Any] = field(default_factory=lambda: SIZES)
    variants: tuple[dict[str, Any], ...] = ROPES
    """Beside those that are made of its config's fields, one at a time."""
    model_class: str = ""
    config_class: str = ""

    @property
    def given(self) -> dict[str, Any]:
        """To its config."""
        return self.sizes | self.changes

    @property
    def hub_class(self) -> str:
        """That of the model."""
        return self.model_class or f"{self.name}ForCausalLM"

    @property
    def _config_class(self) -> Any:
        return getattr(transformers, self.config_class or f"{self.name}Config")

    def values(self, changes: dict[str, Any] | None = None) -> dict[str, Any]:
        """A config.json: all keys of the small model's, but for changes; MISSING takes one out."""
        config = self._config_class(**copy.deepcopy(self.given))
        values = json.loads(config.to_json_string(use_diff=False)) | (changes or {})
        if any("rope" in key or "rotary" in key for key in changes or {}):
            values["rope_parameters"] = (changes or {}).get("rope_parameters", MISSING)
        values |= {"architectures": [self.hub_class]}
        return {key: value for key, value in values.items() if value is not MISSING}

    def model(self, values: dict[str, Any]) -> Any:
        """A random one of a config.json, whose every weight matters to its logits. Raises whatever
        transformers raises for a config that it does not take."""
        config = self._config_class.from_dict(copy.deepcopy(values))
        config._attn_implementation = "eager"
        torch.manual_seed(11)
        made: Any = getattr(transformers, self.hub_class)(config).eval()
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                noise = torch.randn_like(parameter)
                is_norm = "norm" in name or ".ln_" in name
                parameter.copy_(1 + 0.2 * noise if is_norm else 0.2 * noise)
            for name, buffer in made.named_buffers():
                if name.endswith("e_score_correction_bias"):
                    buffer.copy_(torch.randn_like(buffer))
        return made


SMALL_WINDOW = {"sliding_window": 12}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LATENT = {
    "kv_lora_rank": 20, "q_lora_rank": 12, "qk_rope_head_dim": 8, "qk_nope_head_dim": 10,
    "v_head_dim": 6, "num_key_value_heads": 4,
}  # fmt: skip
FAMILIES: tuple[Made, ...] = (
    Made("Llama"),
    Made("Mistral", SMALL_WINDOW, variants=ROPES + WINDOWS),
    Made("Qwen2", variants=(
        *ROPES, *({"use_sliding_window": True, "sliding_window": 9} | each for each in (
            *TYPES, {"max_window_layers": 0}, {"max_window_layers": 1}, {},
            {"sliding_window": None},
        )))),
    Made("Qwen3", {"head_dim": 8}, variants=(
        *ROPES, *({"use_sliding_window": True, "sliding_window": 9} | each for each in (
            *TYPES, {"max_window_layers": 1}, {"attention_bias": True})))),
    Made("Gemma", {"head_dim": 8}),
    Made("Gemma2", SMALL_WINDOW | {"head_dim": 8}, variants=ROPES + WINDOWS + TYPES),
    Made("Gemma3", SMALL_WINDOW | {"head_dim": 8}, config_class="Gemma3TextConfig", variants=(
        *TYPED_ROPES, *WINDOWS, *TYPES, {"sliding_window_pattern": 2}, {"rope_theta": 33.0},
        {"rope_local_base_freq": 44.0}, {"rope_scaling": LINEAR}, {"rope_parameters": LINEAR})),
    Made("Phi", variants=(*ROPES, {"partial_rotary_factor": 1.0})),
    Made("Phi3", SMALL_WINDOW | {"original_max_position_embeddings": 64},
         variants=(*ROPES, *WINDOWS, {"rope_parameters": LONG | {"rope_type": "su"}})),
    Made("Granite", {"embedding_multiplier": 3.0, "logits_scaling": 0.3, "residual_multiplier": 0.4,
                     "attention_multiplier": 0.2}),
    Made("Cohere", variants=(*ROPES, {"use_qk_norm": True, "num_key_value_heads": 4})),
    Made("Cohere2", SMALL_WINDOW | {"layer_types": [SLIDING, FULL]},
         variants=(*ROPES, *WINDOWS, *TYPES, {"sliding_window_pattern": 2})),
    Made("SmolLM3", {"no_rope_layers": [1, 0]}, variants=(
        *ROPES, *TYPES, {"no_rope_layers": [0, 0]}, {"no_rope_layer_interval": 1},
        *({"use_sliding_window": True, "sliding_window": 9} | each for each in (
            *TYPES, {}, {"no_rope_layers": [1, 1]}, {"sliding_window": None})))),
    Made("Olmo"),
    Made("Olmo2"),
    Made("Olmo3", SMALL_WINDOW | {"layer_types": [SLIDING, FULL]}, variants=(
        *TYPED_ROPES, *WINDOWS, *TYPES, {"rope_theta": 33.0}, {"rope_scaling": LINEAR},
        {"rope_parameters": LINEAR})),
    Made("GPTBigCode", sizes=GPT2_SIZES, variants=({"n_inner": 40},)),
    Made("Starcoder2", SMALL_WINDOW, variants=ROPES + WINDOWS),
    Made("StableLm", variants=(*ROPES, {"partial_rotary_factor": 1.0})),
    Made("Nemotron", variants=(*ROPES, {"partial_rotary_factor": 1.0})),
    Made("Glm", {"head_dim": 8}),
    Made("Glm4", {"head_dim": 8}),
    Made("GPT2", sizes=GPT2_SIZES, model_class="GPT2LMHeadModel", variants=({"n_inner": 40},)),
    Made("GPTJ", {"rotary_dim": 4}, GPT2_SIZES, ({"rotary_dim": 8}, {"n_inner": 40})),
    Made("GPTNeoX", variants=(*ROPES, {"rotary_pct": 0.5}, {"rotary_emb_base": 50.0})),
    Made("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32},
         variants=({"word_embed_proj_dim": 16},)),
    Made("Falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, variants=(
        *ROPES, {"num_ln_in_parallel_attn": 1}, {"num_ln_in_parallel_attn": 2},
        *({"new_decoder_architecture": False} | each for each in (
            {}, {"multi_query": False, "num_kv_heads": 4}, {"parallel_attn": False}, {"bias": True},
            {"multi_query": False}, {"alibi": True}, {"num_ln_in_parallel_attn": 2})))),
    Made("Bloom", {"n_layer": 2, "n_head": 4}, {k: v for k, v in SIZES.items() if "num_" not in k},
         ({"n_head": 2}, {"n_head": 8}, {"hidden_size": 24, "n_head": 6},
          {"hidden_size": 24, "n_head": 3}, {"hidden_size": 40, "n_head": 5})),
    Made("Mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": MAX_POSITIONS},
         {"vocab_size": VOCABULARY, "pad_token_id": None, "bos_token_id": None,
          "eos_token_id": 1},
         ({"d_model": 24, "n_heads": 6}, {"d_model": 24, "n_heads": 3},
          *({"attn_config": each} for each in (
              {"clip_qkv": 0.5}, {"softmax_scale": 0.1}, {"alibi_bias_max": 4}, {"alibi": False},
              {"qk_ln": True}, {"prefix_lm": True}, {"attn_type": "multiquery_attention"})))),
    Made("Mixtral", SMALL_WINDOW | {"num_local_experts": 5, "num_experts_per_tok": 2},
         variants=ROPES + WINDOWS),
    Made("Qwen2Moe", EXPERTS | {"shared_expert_intermediate_size": 40}, variants=(
        *ROPES, {"mlp_only_layers": [1]}, {"decoder_sparse_step": 2},
        *({"use_sliding_window": True, "sliding_window": 9} | each for each in (
            *TYPES, {"max_window_layers": 1}, {})))),
    Made("Qwen3Moe", EXPERTS | {"head_dim": 8}, variants=(
        *ROPES, {"mlp_only_layers": [0]}, {"decoder_sparse_step": 2},
        {"use_sliding_window": True, "sliding_window": 9})),
    Made("Glm4Moe", {
        "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "head_dim": 8,
        "num_mtp_layers": 0, "routed_scaling_factor": 1.5,
    }, variants=(*ROPES, {"n_group": 4, "topk_group": 2}, {"first_k_dense_replace": 0},
                 {"n_shared_experts": 2})),
    Made("DeepseekV2", LATENT | {
        "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24,
        "first_k_dense_replace": 1, "routed_scaling_factor": 1.5,
    }, variants=(*LATENT_VARIANTS, {"topk_method": "group_limited_greedy", "n_group": 4,
                                    "topk_group": 2}, {"mlp_bias": True},
                 {"first_k_dense_replace": 0}, {"n_shared_experts": 1})),
    Made("DeepseekV3", LATENT | {
        "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "n_group": 4,
        "topk_group": 2, "first_k_dense_replace": 1, "num_mtp_layers": 0,
    }, variants=(*LATENT_VARIANTS, {"n_group": 1, "topk_group": 1}, {"rope_interleave": False},
                 {"n_shared_experts": 2})),
    Made("GptOss", SMALL_WINDOW | {"num_local_experts": 5, "num_experts_per_tok": 2, "head_dim": 8},
         variants=(*ROPES, *TYPES, *({"sliding_window": size} for size in (1, 7, 40)),
                   {"rope_parameters": None}, {"swiglu_limit": 0.5})),
    Made("Olmoe", {"num_experts": 6, "num_experts_per_tok": 3}),
)  # fmt: skip
BY_NAME = {made.name: made for made in FAMILIES}

NEVER = {
    "return_dict", "output_hidden_states", "output_attentions", "dtype", "chunk_size_feed_forward",
    "is_encoder_decoder", "id2label", "label2id", "problem_type", "architectures", "model_type",
    "transformers_version", "rope_parameters", "layer_types", "attn_config", "mlp_only_layers",
    "no_rope_layers", "initializer_range", "use_cache",
}  # fmt: skip
"""Fields that every config has and no model reads, and those whose values are declared."""
_ACTIVATIONS = ("silu", "gelu", "gelu_new", "gelu_fast", "relu", "relu2", "quick_gelu", "tanh")
COUNTS = {
    "num_hidden_layers", "n_layer", "n_layers", "num_attention_heads", "n_head", "n_heads",
    "num_key_value_heads", "num_kv_heads", "hidden_size", "n_embd", "d_model", "head_dim",
    "max_position_embeddings", "n_positions", "max_seq_len", "vocab_size", "intermediate_size",
    "ffn_dim", "ffn_hidden_size", "num_local_experts", "num_experts", "moe_intermediate_size",
    "shared_expert_intermediate_size", "n_inner", "word_embed_proj_dim", "kv_lora_rank",
    "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "n_routed_experts",
}  # fmt: skip
"""Sizes: the shapes of weights hold them to what they must be."""


def variants(made: Made) -> Iterator[dict[str, Any]]:
    """Changes of a family's config.json: each field with other values, one at a time, each left
    out, and what is declared."""
    for name, value in made.values().items():
        if name in NEVER or name.endswith("_token_id"):
            continue
        if name not in COUNTS:
            yield {name: MISSING}
            yield from ({name: other} for other in others(name, value))
    yield from made.variants


def others(name: str, value: Any) -> Iterator[Any]:
    """Values of a key that may change what a model gives."""
    if name in ("hidden_act", "hidden_activation", "activation_function", "activation"):
        yield from (word for word in _ACTIVATIONS if word != value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, max(value // 2, 1))
    elif isinstance(value, float):
        yield from (value * 1.5 + 0.01, value * 0.1)
    elif value is None:
        yield from (True, 1, 2, 0.3)


def saved(model: Any, values: dict[str, Any], folder: Path) -> Path:
    """As people download it, with that config.json."""
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(values))
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@cache
def _tokenizer() -> tokenizers.Tokenizer:
    """Of single bytes, of which it knows as many as the models have tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[:VOCABULARY]
    words = {letter: number for number, letter in enumerate(alphabet)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(words, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


@torch.inference_mode()
def logits(model: Any, prompts: list[list[int]]) -> list[Tensor]:
    """Of each prompt by itself, without a cache."""
    return [model(torch.tensor([prompt]), use_cache=False).logits[0] for prompt in prompts]
