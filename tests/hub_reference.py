"""The small model in `transformers`, as reference of what an engine computes.

Its weights come by the `gguf` package: transformers' own reader of such files takes ten seconds
longer. A slow test compares the two.
"""

from functools import cache
from pathlib import Path
from typing import Any

import gguf
import torch
import transformers
from torch import Tensor

NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip


@cache
def hub_model(path: Path) -> Any:
    """A Llama whose embedding is its head, float32."""
    reader = gguf.GGUFReader(path)
    config = _config({name: field for name, field in reader.fields.items() if "llama." in name})
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    made = {}
    for tensor in reader.tensors:
        data = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type))
        kind = tensor.name.split(".")[-2]
        made[_name(tensor.name)] = _unrotated(data, heads[kind]) if kind in heads else data
    made["lm_head.weight"] = made["model.embed_tokens.weight"]
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(made, assign=True)
    # Computed, not read: the rotation's, which meta tensors lack.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


def _config(fields: dict[str, Any]) -> transformers.LlamaConfig:
    def value(name: str) -> Any:
        return fields[f"llama.{name}"].contents()

    return transformers.LlamaConfig(
        vocab_size=value("vocab_size"),
        hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"),
        num_attention_heads=value("attention.head_count"),
        num_key_value_heads=value("attention.head_count_kv"),
        max_position_embeddings=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": value("rope.freq_base")},
        tie_word_embeddings=True,
    )


def _name(name: str) -> str:
    match name.split("."):
        case ["blk", layer, kind, "weight"]:
            return f"model.layers.{layer}.{NAMES[kind]}.weight"
        case ["token_embd", "weight"]:
            return "model.embed_tokens.weight"
        case ["output_norm", "weight"]:
            return "model.norm.weight"
    raise AssertionError(f"what is {name}?")


def _unrotated(weight: Tensor, heads: int) -> Tensor:
    """Such files have the two halves of each head's rows in turns."""
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
