"""Models that know distances by linear biases: BLOOM (BigScience, 2022) and MPT (MosaicML, 2023).

Source: Press, Smith, Lewis, Train Short, Test Long (2022).
"""

import math

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, Values, gguf_reader
from trivet.backends.llm.families.hub import HeadSizes, hub_model
from trivet.backends.llm.families.kinds import (
    Activation,
    GroupedAttention,
    Layer,
    LayerNorm,
    PlainMlp,
)
from trivet.backends.llm.families.names import Names, Role, weight

_BLOOM = "transformer.h.{layer}."
_BLOOM_NAMES = Names((
    weight("transformer.word_embeddings", Role.EMBEDDING),
    weight("transformer.word_embeddings_layernorm", Role.EMBEDDING_NORM),
    weight(f"{_BLOOM}input_layernorm", Role.ATTENTION_NORM),
    weight(f"{_BLOOM}self_attention.query_key_value", Role.QUERY, Role.KEY, Role.VALUE,
           groups_heads=True),
    weight(f"{_BLOOM}self_attention.dense", Role.OUTPUT),
    weight(f"{_BLOOM}post_attention_layernorm", Role.MLP_NORM),
    weight(f"{_BLOOM}mlp.dense_h_to_4h", Role.UP),
    weight(f"{_BLOOM}mlp.dense_4h_to_h", Role.DOWN),
    weight("transformer.ln_f", Role.FINAL_NORM),
    weight("lm_head", Role.HEAD),
))  # fmt: skip
_MPT = "transformer.blocks.{layer}."
_MPT_NAMES = Names((
    weight("transformer.wte", Role.EMBEDDING),
    weight(f"{_MPT}norm_1", Role.ATTENTION_NORM),
    weight(f"{_MPT}attn.Wqkv", Role.QUERY, Role.KEY, Role.VALUE),
    weight(f"{_MPT}attn.out_proj", Role.OUTPUT),
    weight(f"{_MPT}norm_2", Role.MLP_NORM),
    weight(f"{_MPT}ffn.up_proj", Role.UP),
    weight(f"{_MPT}ffn.down_proj", Role.DOWN),
    weight("transformer.norm_f", Role.FINAL_NORM),
    weight("lm_head", Role.HEAD),
))  # fmt: skip
_KEYS = {
    "n_embed": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
}


def _bloom(given: Described) -> LlmConfig:
    config = given.renamed(_KEYS)
    config.only("apply_residual_connection_post_layernorm", False)
    heads = HeadSizes.of(config.without("num_key_value_heads", "head_dim"))
    norm = LayerNorm(config.number("layer_norm_epsilon", 1e-5))
    attention = GroupedAttention(
        heads.num_heads,
        heads.num_heads,
        heads.head_dim,
        rope=None,
        has_qkv_bias=True,
        has_output_bias=True,
        slopes=_bloom_slopes(heads.num_heads),
    )
    mlp = PlainMlp(4 * config.size("hidden_size"), Activation.GELU_TANH)
    return hub_model(
        config,
        "bloom",
        _BLOOM_NAMES,
        [Layer(attention, mlp, norm)] * config.size("num_hidden_layers"),
        norm,
        ties=True,
        embedding_norm=norm,
        # Distances may be any; this is what the models were trained with.
        max_positions=config.size("seq_length", 2048),
    )


def _bloom_slopes(num_heads: int) -> tuple[float, ...]:
    """Powers of one base; where heads are no power of two, of a second for those left over."""
    whole = 1 << num_heads.bit_length() - 1
    slopes = [2.0 ** (-8.0 * power / whole) for power in range(1, whole + 1)]
    left = num_heads - whole
    return (*slopes, *(2.0 ** (-4.0 * power / whole) for power in range(1, 2 * left, 2)))


def _mpt(given: Described) -> LlmConfig:
    config = given.renamed(_KEYS)
    attention_config = config.within("attn_config")
    heads = HeadSizes.of(config.without("num_key_value_heads", "head_dim"))
    norm = LayerNorm(config.number("layer_norm_epsilon", 1e-5), has_bias=False)
    scale = attention_config.get("softmax_scale")
    attention = GroupedAttention(
        heads.num_heads,
        heads.num_heads,
        heads.head_dim,
        rope=None,
        score_multiplier=None if scale is None else attention_config.number("softmax_scale"),
        slopes=_mpt_slopes(heads.num_heads, attention_config.number("alibi_bias_max", 8)),
        qkv_clip=attention_config.number("clip_qkv", 0.0),
    )
    mlp = PlainMlp(4 * config.size("hidden_size"), Activation.GELU, has_bias=False)
    return hub_model(
        config,
        "mpt",
        _MPT_NAMES,
        [Layer(attention, mlp, norm)] * config.size("num_hidden_layers"),
        norm,
        ties=True,
        max_positions=config.size("max_seq_len", 2048),
    )


def _mpt_slopes(num_heads: int, greatest: float) -> tuple[float, ...]:
    """Of the next power of two, of which every second is taken first where heads are fewer."""
    whole = 2 ** math.ceil(math.log2(num_heads))
    slopes = [2.0 ** (-greatest * power / whole) for power in range(1, whole + 1)]
    return tuple(slopes if whole == num_heads else (slopes[1::2] + slopes[::2])[:num_heads])


_EPSILON = {"attention.layer_norm_epsilon": "layer_norm_epsilon"}
_BLOOM_KEYS = GgufKeys(
    _EPSILON | {"context_length": "seq_length", "feed_forward_length": ""}, has_rope=False
)
BLOOM = Family("bloom", "BloomForCausalLM", _bloom, gguf_reader(_bloom, "bloom", _BLOOM_KEYS))


def _attention_config(values: Values) -> Values:
    names = ("alibi_bias_max", "clip_qkv")
    return {"attn_config": {name: values[name] for name in names if name in values}}


_MPT_KEYS = GgufKeys(
    _EPSILON
    | {
        "context_length": "max_seq_len",
        "feed_forward_length": "",
        "attention.max_alibi_bias": "alibi_bias_max",
        "attention.clamp_kqv": "clip_qkv",
    },
    derived=_attention_config,
    has_rope=False,
)
MPT = Family("mpt", "MptForCausalLM", _mpt, gguf_reader(_mpt, "mpt", _MPT_KEYS))
