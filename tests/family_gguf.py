"""Small models of families as GGUF files: names by the gguf package, and what llama.cpp's converter
does to the weights and keys of each architecture, as far as our files need it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import torch
from family_models import Made
from gguf_files import trained, write_gguf
from tokenizers import pre_tokenizers
from torch import Tensor

USUAL = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "layer_norm_eps": "attention.layer_norm_epsilon",
    "head_dim": "attention.key_length",
    "n_layer": "block_count",
    "n_embd": "embedding_length",
    "n_head": "attention.head_count",
    "n_positions": "context_length",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
}
Change = Callable[[str, Tensor, dict[str, Any]], Tensor]
"""Of a weight, by its name in Hugging Face's files and the config's keys."""


def same(name: str, weight: Tensor, values: dict[str, Any]) -> Tensor:
    return weight


def offset(name: str, weight: Tensor, values: dict[str, Any]) -> Tensor:
    return weight + 1 if name.endswith("norm.weight") else weight


def transposed(name: str, weight: Tensor, values: dict[str, Any]) -> Tensor:
    joints = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
    return weight.t().contiguous() if name.endswith(joints) else weight


def permuted(name: str, weight: Tensor, values: dict[str, Any]) -> Tensor:
    for ending, key in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
        if f"{ending}." in name:
            halves = weight.reshape(values[key], 2, -1, *weight.shape[1:])
            return halves.transpose(1, 2).reshape(weight.shape)
    return weight


def regrouped(name: str, weight: Tensor, values: dict[str, Any]) -> Tensor:
    if "query_key_value" not in name:
        return weight
    heads = values.get("num_attention_heads") or values["n_head"]
    kv = values.get("num_kv_heads") or heads
    size = (values.get("hidden_size") or values["n_embd"]) // heads
    parts = weight.reshape(kv, heads // kv + 2, size, *weight.shape[1:])
    queries, keys, states = torch.split(parts, [heads // kv, 1, 1], dim=1)
    return torch.cat([each.reshape(-1, *weight.shape[1:]) for each in (queries, keys, states)])


@dataclass(frozen=True, slots=True)
class GgufForm:
    """An architecture of GGUF."""

    architecture: str
    change: Change = same
    keys: Mapping[str, str] = field(default_factory=dict)
    """Of config.json, and GGUF's."""
    has_rope: bool = True
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What the small model must be for llama.cpp to compute it so."""
    prepare: Callable[[dict[str, Tensor], dict[str, Any]], dict[str, Tensor]] = (
        lambda state, values: state  # most are written as they are
    )
    """Weights that the converter cuts up, by their config's keys."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Further metadata."""


def one_by_one(state: dict[str, Tensor], values: dict[str, Any]) -> dict[str, Tensor]:
    """gpt-oss' experts, which its files have as one tensor."""
    found = {}
    for name, weight in state.items():
        stem, _, kind = name.partition(".mlp.experts.")
        if not kind:
            found[name.replace(".sinks", ".sinks.weight")] = weight
            continue
        ending = "bias" if kind.endswith("_bias") else "weight"
        whole = weight if ending == "bias" else weight.transpose(1, 2)
        parts = {"down_proj": whole}
        if kind.startswith("gate_up"):
            parts = {"gate_proj": whole[:, ::2], "up_proj": whole[:, 1::2]}
        for part, tensor in parts.items():
            for expert, each in enumerate(tensor):
                found[f"{stem}.mlp.experts.{expert}.{part}.{ending}"] = each.contiguous()
    return found


def corrected(state: dict[str, Tensor], values: dict[str, Any]) -> dict[str, Tensor]:
    """A correction is written as a bias."""
    return {
        name.replace("e_score_correction_bias", "e_score_correction.bias"): weight
        for name, weight in state.items()
    }


def apart(state: dict[str, Tensor], values: dict[str, Any]) -> dict[str, Tensor]:
    """DeepSeek's keys and values of the latent, as newer files have them."""
    found = {}
    plain, size = values["qk_nope_head_dim"], values["v_head_dim"]
    for name, weight in corrected(state, values).items():
        if not name.endswith("kv_b_proj.weight"):
            found[name] = weight
            continue
        heads = weight.view(values["num_attention_heads"], plain + size, -1)
        keys = heads[:, :plain].transpose(1, 2).contiguous()
        found[name.replace("kv_b_proj", "k_b_proj")] = keys
        found[name.replace("kv_b_proj", "v_b_proj")] = heads[:, plain:].contiguous()
    return found


DEEPSEEK = {
    "n_routed_experts": "expert_count", "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length", "n_shared_experts":
    "expert_shared_count", "routed_scaling_factor": "expert_weights_scale",
    "first_k_dense_replace": "leading_dense_block_count",
}  # fmt: skip
LATENTS = {
    "q_lora_rank": "attention.q_lora_rank", "kv_lora_rank": "attention.kv_lora_rank",
}  # fmt: skip
LAYER_NORM = "attention.layer_norm_epsilon"
HALF = {"partial_rotary_factor": 0.5}
FORMS: Mapping[str, GgufForm] = {
    "Gemma": GgufForm("gemma", offset),
    "Gemma2": GgufForm("gemma2", offset, {
        "sliding_window": "attention.sliding_window",
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    }, changes={"query_pre_attn_scalar": 8}),
    "Gemma3": GgufForm("gemma3", offset, {"sliding_window": "attention.sliding_window"},
                       changes={"query_pre_attn_scalar": 8, "num_hidden_layers": 6,
                                "layer_types": None}),
    "Phi": GgufForm("phi2", changes=HALF),
    "Phi3": GgufForm("phi3", keys={"sliding_window": "attention.sliding_window"}),
    "Granite": GgufForm("granite", permuted, {
        "attention_multiplier": "attention.scale", "embedding_multiplier": "embedding_scale",
        "residual_multiplier": "residual_scale", "logits_scaling": "logit_scale",
    }, changes={"attention_bias": True, "mlp_bias": False}),
    "Cohere": GgufForm("command-r", keys={"logit_scale": "logit_scale"}),
    "Cohere2": GgufForm("cohere2", keys={
        "logit_scale": "logit_scale", "sliding_window": "attention.sliding_window",
    }, changes={"num_hidden_layers": 4, "layer_types": None}),
    "SmolLM3": GgufForm("smollm3", permuted,
                        changes={"num_hidden_layers": 4, "no_rope_layers": None,
                                 "layer_types": None}),
    "Olmo2": GgufForm("olmo2"),
    "Starcoder2": GgufForm("starcoder2", keys={
        "norm_epsilon": LAYER_NORM, "sliding_window": "attention.sliding_window"}),
    "StableLm": GgufForm("stablelm", keys={"use_parallel_residual": "use_parallel_residual"},
                         changes=HALF),
    "GPT2": GgufForm("gpt2", transposed, has_rope=False),
    "GPTNeoX": GgufForm("gptneox", regrouped,
                        {"use_parallel_residual": "use_parallel_residual"},
                        changes={"rotary_pct": 0.5, "rotary_emb_base": 500.0}),
    "Falcon": GgufForm("falcon", regrouped, {
        "num_kv_heads": "attention.head_count_kv", "ffn_hidden_size": "feed_forward_length"}),
    "Bloom": GgufForm("bloom", regrouped, has_rope=False),
    "Mpt": GgufForm("mpt", keys={
        "d_model": "embedding_length", "n_layers": "block_count",
        "n_heads": "attention.head_count", "max_seq_len": "context_length",
    }, has_rope=False),
    "Mixtral": GgufForm("llama", permuted, {
        "num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count",
        "sliding_window": "attention.sliding_window",
    }),
    "Qwen2Moe": GgufForm("qwen2moe", keys={
        "num_experts": "expert_count", "num_experts_per_tok": "expert_used_count",
        "moe_intermediate_size": "expert_feed_forward_length",
        "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    }),
    "Qwen3Moe": GgufForm("qwen3moe", keys={
        "num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count",
        "moe_intermediate_size": "expert_feed_forward_length",
    }, changes={"norm_topk_prob": True}),
    "Olmo": GgufForm("olmo", permuted, changes={"clip_qkv": None}),
    "GPTBigCode": GgufForm("starcoder", has_rope=False,
                           constants={"attention.head_count_kv": 1, "feed_forward_length": 128}),
    "Nemotron": GgufForm("nemotron", offset, {"norm_eps": LAYER_NORM}, changes=HALF),
    "Glm4": GgufForm("glm4", changes=HALF),
    "Glm4Moe": GgufForm("glm4moe", keys=DEEPSEEK | {"norm_topk_prob": "expert_weights_norm"},
                        changes=HALF | {"n_group": 1, "topk_group": 1}, prepare=corrected,
                        constants={"expert_gating_func": 2}),
    "DeepseekV2": GgufForm("deepseek2", keys=DEEPSEEK | LATENTS, constants={
        "attention.key_length": 18, "attention.value_length": 6, "expert_gating_func": 1,
    }),
    "DeepseekV3": GgufForm("deepseek2", keys=DEEPSEEK | LATENTS | {
        "norm_topk_prob": "expert_weights_norm", "n_group": "expert_group_count",
        "topk_group": "expert_group_used_count",
    }, prepare=apart, constants={
        "attention.key_length": 28, "attention.value_length": 20, "expert_gating_func": 2,
        "attention.key_length_mla": 18, "attention.value_length_mla": 6,
        "attention.head_count_kv": 1,
    }),
    "GptOss": GgufForm("gpt-oss", keys={
        "num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count",
        "sliding_window": "attention.sliding_window",
    }, changes={"layer_types": None, "rope_parameters": {"rope_type": "default",
                                                         "rope_theta": 500.0}},
        prepare=one_by_one),
    "Olmoe": GgufForm("olmoe", keys={
        "num_experts": "expert_count", "num_experts_per_tok": "expert_used_count"}),
}  # fmt: skip


@cache
def tokenizer_metadata() -> Mapping[str, Any]:
    """Of a vocabulary that all share."""
    return trained(pre_tokenizers.ByteLevel(add_prefix_space=False))


def values_for_gguf(made: Made, form: GgufForm) -> dict[str, Any]:
    """A config.json of a model that such a file can be made of."""
    vocabulary_size = len(tokenizer_metadata()["tokenizer.ggml.tokens"])
    rope = {"rope_theta": 500.0} if form.has_rope else {}
    return made.values({**form.changes, **rope, "vocab_size": vocabulary_size})


def write_family(
    path: Path, form: GgufForm, values: dict[str, Any], state: dict[str, Tensor]
) -> None:
    """`state`: by the names in Hugging Face's files."""
    metadata = dict(tokenizer_metadata())
    prefix = f"{form.architecture}."
    for name, key in {**USUAL, **form.keys}.items():
        if values.get(name) is not None:
            metadata[prefix + key] = values[name]
    heads = metadata[f"{prefix}attention.head_count"]
    size = values.get("head_dim") or metadata[f"{prefix}embedding_length"] // heads
    if form.has_rope:
        metadata[f"{prefix}rope.freq_base"] = 500.0
        share = values.get("partial_rotary_factor", values.get("rotary_pct", 1.0))
        metadata[f"{prefix}rope.dimension_count"] = int(size * share)
    metadata |= {prefix + name: value for name, value in form.constants.items()}
    tensors = {
        name: (weight.float().numpy(), gguf.GGMLQuantizationType.F32)
        for name, weight in _named(form, values, form.prepare(state, values)).items()
    }
    write_gguf(path, form.architecture, metadata, tensors)


def _named(form: GgufForm, values: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """By GGUF's names; experts stacked."""
    architecture = next(
        each for each, name in gguf.MODEL_ARCH_NAMES.items() if name == form.architecture
    )
    names = gguf.get_tensor_name_map(architecture, 64)
    found: dict[str, Tensor] = {}
    experts: dict[str, list[Tensor]] = {}
    for name, weight in state.items():
        parts = name.split(".")
        if "experts" in parts:
            place = parts.index("experts")
            stacked = ".".join([*parts[: place + 1], *parts[place + 2 :]])
            experts.setdefault(stacked, []).append(weight)
            continue
        found[_name(names, name)] = form.change(name, weight, values)
    for name, weights in experts.items():
        found[_name(names, name)] = torch.stack(weights)
    return found


def _name(names: gguf.TensorNameMap, name: str) -> str:
    # As the converter of BLOOM, it knows some names without the model's.
    endings = (".weight", ".bias")
    found = names.get_name(name, endings) or names.get_name(
        name.removeprefix("transformer."), endings
    )
    assert found is not None, name
    return found
