"""A tiny random model of each class that transformers generates text with: its config made small
by the names of its keys, its weights such that each matters to the logits."""

from typing import Any

import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
)

VOCABULARY = 96
MAX_POSITIONS = 128
MODEL_TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
_SIZES: dict[int, str] = {
    32: "hidden_size d_model n_embd dim embed_dim embedding_size word_embed_proj_dim lru_width "
        "hidden_size_per_layer_input embedding_dim d_embed emb_dim hidden_size_global ",
    48: "intermediate_size ffn_dim n_inner inner_dim decoder_ffn_dim encoder_ffn_dim "
        "moe_intermediate_size shared_expert_intermediate_size intermediate_size_mlp "
        "d_inner dense_intermediate_size shared_intermediate_size expert_ffn_hidden_size "
        "moe_shared_expert_intermediate_size ffn_hidden_size moe_ffn_hidden_size",
    VOCABULARY: "vocab_size text_vocab_size vocab_size_per_layer_input",
    MAX_POSITIONS: "max_position_embeddings n_positions max_seq_len max_sequence_length seq_length "
                   "n_ctx",
    2: "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers "
       "num_key_value_heads num_experts_per_tok top_k moe_topk moe_top_k n_group "
       "num_key_value_groups multi_query_group_num expert_top_k moe_k num_experts_per_token",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads mamba_n_heads "
       "encoder_attention_heads num_local_experts num_experts n_routed_experts moe_num_experts "
       "mamba_num_heads linear_num_key_heads linear_num_value_heads index_n_heads ",
    8: "head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim global_head_dim mamba_d_head "
       "rotary_dim attention_head_dim linear_key_head_dim linear_value_head_dim mamba_head_dim "
       "kv_channels mamba_d_state state_size ssm_state_size index_head_dim kda_head_dim",
    16: "sliding_window q_lora_rank kv_lora_rank attention_chunk_size window_size chunk_size "
        "mamba_dt_rank time_step_rank mamba_chunk_size o_lora_rank block_size",
    64: "index_topk",  # all: of scores that are 0, as a ReLU makes them, any may be the highest
    1: "n_shared_experts topk_group num_shared_experts first_k_dense_replace",
}  # fmt: skip
_BY_NAME: dict[str, Any] = {name: size for size, names in _SIZES.items() for name in names.split()}
_BY_NAME |= {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "is_decoder": True,
    "sliding_window_size": 16,
    "attention_window_size": 16,
}

_MIXED = ["linear_attention", "full_attention", "linear_attention", "full_attention"]
_CONVOLVED = ["conv", "full_attention", "conv", "full_attention"]
_DELTA: dict[str, Any] = {"layer_types": _MIXED, "num_hidden_layers": 4}
_MAMBA2: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 8}
_INDEXED: dict[str, Any] = {
    "layer_types": ["linear_attention", "indexed_attention"] * 2, "num_hidden_layers": 4,
    "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 64,
    "indexer_compress_ratio": 4, "hc_lowrank": 8,
}  # fmt: skip
_TEXT_OF_QWEN: dict[str, Any] = {"text_config": _DELTA}
OWN: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {
        **_DELTA,
        "qk_rope_head_dim": 8,
        "head_dim": 8,
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "mlp_layer_types": ["dense", "dense", "sparse", "sparse"],
        "num_expert_group": 1,
        "layer_group_size": 2,
    },
    "bamba": {**_MAMBA2, "attn_layer_indices": [1], "num_hidden_layers": 3},
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e4},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
    },
    "blt": {"encoder_hash_byte_group_vocab": VOCABULARY},
    "cpmant": {"dim_head": 8, "dim_ff": 48, "prompt_length": 4},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "intermediate_size": [48] * 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
    },
    "gemma4_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {**_MAMBA2, "layer_types": _MIXED, "num_hidden_layers": 4},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "num_experts": 4, "moe_topk": 2},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {
        **_DELTA,
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    },
    "lfm2": {"layer_types": _CONVOLVED, "num_hidden_layers": 4},
    "lfm2_moe": {"layer_types": _CONVOLVED, "num_hidden_layers": 4, "num_dense_layers": 1},
    "lfm3": {
        "layer_types": ["conv", "full_attention", "conv", "sliding_attention"],
        "num_hidden_layers": 4,
    },
    "llama4_text": {
        "layer_types": ["chunked_attention", "full_attention"],
        "no_rope_layers": [1, 0],
        "num_experts_per_tok": 1,
        "floor_scale": 16,
        "intermediate_size_mlp": 48,
        "moe_layers": [0, 1],
    },
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2},
    "minimax": {**_DELTA, "head_dim": 8},
    "minimax_m3_vl_text": {
        "layer_types": ["full_attention", "minimax_m3_sparse"],
        "index_n_heads": 2,
        "index_block_size": 8,
        "index_topk_blocks": 2,
    },
    "ministral": {"head_dim": 8},
    "moshi": {"sliding_window": MAX_POSITIONS},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
        "n_groups": 2,
        "num_hidden_layers": 4,
    },
    "olmo_hybrid": _DELTA,
    "prophetnet": {
        "num_decoder_layers": 2,
        "num_encoder_layers": 2,
        "num_decoder_attention_heads": 4,
        "num_encoder_attention_heads": 4,
        "add_cross_attention": False,
    },
    "qwen3_5": _TEXT_OF_QWEN,
    "qwen3_5_moe": _TEXT_OF_QWEN,
    "qwen3_5_moe_text": _DELTA,
    "qwen3_5_text": _DELTA,
    "qwen3_next": _DELTA,
    "qwen4_exp": {"text_config": _INDEXED},
    "qwen4_exp_text": _INDEXED,
    "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": 16},
    "reformer": {
        "axial_pos_embds_dim": [8, 24],
        "axial_pos_shape": [8, 16],
        "attention_head_size": 8,
        "feed_forward_size": 48,
        "attn_layers": ["local", "local"],
        "local_attn_chunk_length": 8,
    },
    "xlm": {"n_layers": 2, "causal": True},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "num_hidden_layers": 4,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "mamba_d_state": 8,
        "num_key_value_heads": 4,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "num_hidden_layers": 4,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
        "num_key_value_heads": 4,
        "kv_channels": 8,
        "num_query_groups": 4,
        "hybrid_layer_ids": [1, 3],
    },
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}
"""What a class' config needs besides, by model_type."""


def tiny_config(model_type: str) -> Any:
    """The config of a class, made small."""
    kind = CONFIG_MAPPING[model_type]
    return kind(**_small(kind().to_dict(), OWN.get(model_type, {})))


def _small(values: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    found = {name: _BY_NAME[name] for name, value in values.items()
             if name in _BY_NAME and not (value is None and name not in own)}  # fmt: skip
    if "kv_lora_rank" in values:
        found["num_key_value_heads"] = found["num_attention_heads"]
    for name, value in values.items():
        if isinstance(value, dict) and name.endswith("config"):
            found[name] = _small(value, own.get(name, {}))
    return found | {name: value for name, value in own.items() if not name.endswith("config")}


def decoder_of(outer: Any) -> tuple[Any, Any]:
    """The class that AutoModelForCausalLM has for a config, and the config that it is made with: of
    models of several kinds of input that of the text."""
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(outer)]
    is_outer = kind.config_class is outer.sub_configs.get("text_config")
    return kind, outer.get_text_config() if is_outer else outer


def tiny_model(model_type: str) -> Any:
    """A model of it in float32; its `outer_config` is what a folder of it has."""
    outer = tiny_config(model_type)
    kind, config = decoder_of(outer)
    outer.architectures = [kind.__name__]
    model = random_model(kind, config)
    model.outer_config = outer
    return model


def random_model(kind: Any, config: Any) -> Any:
    """A model of a class, whose every weight matters to its logits."""
    torch.manual_seed(11)
    model = kind(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if parameter.dim() >= 2:
                parameter.copy_(noise * min(0.2, 1.5 * parameter.shape[-1] ** -0.5))
            elif "norm" in name.lower() and name.endswith("weight"):
                parameter.add_(0.1 * noise)
            elif name.endswith("bias"):
                parameter.add_(0.05 * noise)
    return model
