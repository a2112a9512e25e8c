"""Falcon (TII, 2023): attention and MLP side by side, queries by the key they share."""

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, gguf_reader
from trivet.backends.llm.families.hub import HeadSizes, activation, hub_model
from trivet.backends.llm.families.kinds import (
    Arrangement,
    GroupedAttention,
    Layer,
    LayerNorm,
    PlainMlp,
)
from trivet.backends.llm.families.names import Names, Role, weight
from trivet.backends.llm.families.rope import hub_rope

_LAYER = "transformer.h.{layer}."
_NAMES = Names((
    weight("transformer.word_embeddings", Role.EMBEDDING),
    weight(f"{_LAYER}input_layernorm", Role.ATTENTION_NORM),
    weight(f"{_LAYER}self_attention.query_key_value", Role.QUERY, Role.KEY, Role.VALUE,
           groups_heads=True),
    weight(f"{_LAYER}self_attention.dense", Role.OUTPUT),
    weight(f"{_LAYER}post_attention_layernorm", Role.MLP_NORM),
    weight(f"{_LAYER}mlp.dense_h_to_4h", Role.UP),
    weight(f"{_LAYER}mlp.dense_4h_to_h", Role.DOWN),
    weight("transformer.ln_f", Role.FINAL_NORM),
    weight("lm_head", Role.HEAD),
))  # fmt: skip
_TWO_NORMS_NAMES = _NAMES.having(
    weight(f"{_LAYER}ln_attn", Role.ATTENTION_NORM, gguf="blk.{layer}.attn_norm_2"),
    weight(f"{_LAYER}ln_mlp", Role.MLP_NORM, gguf="blk.{layer}.attn_norm"),
)


def _from_hub(given: Described) -> LlmConfig:
    config = given.renamed({"n_embed": "hidden_size"})
    # Its biases are rounded to bfloat16 at each position, so that places count and not distances.
    config.only("alibi", False, None)
    arrangement = _arrangement(config)
    heads = HeadSizes.of(config.without("num_key_value_heads", "head_dim"))
    norm = LayerNorm(config.number("layer_norm_epsilon", 1e-5))
    has_bias = config.flag("bias", default=False)
    attention = GroupedAttention(
        heads.num_heads,
        _num_kv_heads(config, heads.num_heads),
        heads.head_dim,
        rope=hub_rope(config, heads.head_dim),
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
    )
    inner = config.size("ffn_hidden_size", 4 * config.size("hidden_size"))
    mlp = PlainMlp(inner, activation(config, "activation", "gelu"), has_bias)
    layers = [Layer(attention, mlp, norm, arrangement)] * config.size("num_hidden_layers")
    names = _TWO_NORMS_NAMES if arrangement is Arrangement.PARALLEL_NORMS else _NAMES
    positions = config.size("max_position_embeddings", 2048)
    config = config.having(max_position_embeddings=positions)
    return hub_model(config, "falcon", names, layers, norm, ties=True)


def _arrangement(config: Described) -> Arrangement:
    if not config.flag("new_decoder_architecture", default=False):
        config.only("num_ln_in_parallel_attn", None, 1)
        is_parallel = config.flag("parallel_attn", default=True)
        return Arrangement.PARALLEL if is_parallel else Arrangement.PRE_NORM
    config.only("parallel_attn", True)
    config.only("num_ln_in_parallel_attn", None, 1, 2)
    is_one = config.get("num_ln_in_parallel_attn") == 1
    return Arrangement.PARALLEL if is_one else Arrangement.PARALLEL_NORMS


def _num_kv_heads(config: Described, num_heads: int) -> int:
    if config.flag("new_decoder_architecture", default=False):
        return config.size("num_kv_heads", num_heads)
    if config.flag("multi_query", default=True):
        return 1
    config.only("num_kv_heads", None, num_heads)
    return num_heads


_KEYS = GgufKeys(
    {
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
        "attention.head_count_kv": "num_kv_heads",
        "feed_forward_length": "ffn_hidden_size",
    },
    {"new_decoder_architecture": "attn_norm_2.weight"},
)
FALCON = Family("falcon", "FalconForCausalLM", _from_hub, gguf_reader(_from_hub, "falcon", _KEYS))
