"""GPT-2: learned positions, layer norms and GELU (Radford et al., 2019)."""

from collections.abc import Mapping
from dataclasses import replace

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, gguf_reader
from trivet.backends.llm.families.hub import HeadSizes, activation, hub_model
from trivet.backends.llm.families.kinds import GroupedAttention, Layer, LayerNorm, PlainMlp
from trivet.backends.llm.families.names import Names, Role, weight

GPT2_KEYS: Mapping[str, str] = {
    "n_embd": "hidden_size",
    "n_positions": "max_position_embeddings",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
}
"""Of GPT-2's config.json, and what most call them."""
_LAYER = "transformer.h.{layer}."


def gpt2_names(*, is_transposed: bool, groups_heads: bool = False) -> Names:
    """Of a model of GPT-2's shape."""
    return Names(
        (
            weight("transformer.wte", Role.EMBEDDING),
            weight("transformer.wpe", Role.POSITIONS),
            weight(f"{_LAYER}ln_1", Role.ATTENTION_NORM),
            weight(f"{_LAYER}attn.c_attn", Role.QUERY, Role.KEY, Role.VALUE,
                   is_transposed=is_transposed, groups_heads=groups_heads),
            weight(f"{_LAYER}attn.c_proj", Role.OUTPUT, is_transposed=is_transposed),
            weight(f"{_LAYER}ln_2", Role.MLP_NORM),
            weight(f"{_LAYER}mlp.c_fc", Role.UP, is_transposed=is_transposed),
            weight(f"{_LAYER}mlp.c_proj", Role.DOWN, is_transposed=is_transposed),
            weight("transformer.ln_f", Role.FINAL_NORM),
            weight("lm_head", Role.HEAD),
        ),
        needless=(".attn.bias", ".attn.masked_bias"),
    )  # fmt: skip


def gpt2_layers(config: Described, num_kv_heads: int | None, act: str) -> list[Layer]:
    """Of a config.json whose keys are renamed; `act`: the activation where it does not say."""
    heads = HeadSizes.of(config.without("num_key_value_heads", "head_dim"))
    is_scaled = config.flag("scale_attn_weights", default=True)
    attention = GroupedAttention(
        heads.num_heads,
        num_kv_heads or heads.num_heads,
        heads.head_dim,
        rope=None,
        score_multiplier=None if is_scaled else 1.0,
        has_qkv_bias=True,
        has_output_bias=True,
    )
    inner = config.size("n_inner", 4 * config.size("hidden_size"))
    mlp = PlainMlp(inner, activation(config, "activation_function", act))
    layer = Layer(attention, mlp, LayerNorm(config.number("layer_norm_epsilon", 1e-5)))
    return [layer] * config.size("num_hidden_layers")


def gpt2_model(
    config: Described,
    architecture: str,
    layers: list[Layer],
    *,
    is_transposed: bool,
    groups_heads: bool = False,
) -> LlmConfig:
    """The model around layers of GPT-2's shape."""
    names = gpt2_names(is_transposed=is_transposed, groups_heads=groups_heads)
    return hub_model(
        config, architecture, names, layers, layers[0].norm, ties=True, has_learned_positions=True
    )


def _from_hub(given: Described) -> LlmConfig:
    config = given.renamed(GPT2_KEYS)
    config.only("add_cross_attention", False)
    layers = gpt2_layers(config, None, "gelu_new")
    if config.flag("scale_attn_by_inverse_layer_idx", default=False):
        layers = [
            replace(layer, attention=_scaled(layer.attention, 1 / (index + 1)))
            for index, layer in enumerate(layers)
        ]
    return gpt2_model(config, "gpt2", layers, is_transposed=True)


def _scaled(attention: GroupedAttention, factor: float) -> GroupedAttention:
    return replace(attention, score_multiplier=attention.scale * factor)


_KEYS = GgufKeys(
    {"attention.layer_norm_epsilon": "layer_norm_epsilon", "feed_forward_length": "n_inner"},
    has_rope=False,
)
GPT2 = Family("gpt2", "GPT2LMHeadModel", _from_hub, gguf_reader(_from_hub, "gpt2", _KEYS))
