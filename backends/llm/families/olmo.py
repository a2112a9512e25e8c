"""OLMo (AI2, 2024), whose norms have no weights, OLMo 2 with norms behind attention and MLP, and
OLMo 3 with windows (2025)."""

from dataclasses import replace

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, gguf_reader
from trivet.backends.llm.families.hub import (
    FULL,
    SLIDING,
    activation,
    every,
    hub_attention,
    hub_model,
    layer_types,
)
from trivet.backends.llm.families.kinds import (
    Arrangement,
    GatedMlp,
    Layer,
    LayerNorm,
    NormSpan,
    RmsNorm,
)
from trivet.backends.llm.families.llama import HALVES_NAMES, LLAMA_NAMES
from trivet.backends.llm.families.names import Role, weight
from trivet.backends.llm.families.rope import RopeRules

_LAYER = "model.layers.{layer}."
_NAMES = HALVES_NAMES.having(
    weight(f"{_LAYER}post_attention_layernorm", Role.ATTENTION_POST_NORM),
    weight(f"{_LAYER}post_feedforward_layernorm", Role.MLP_POST_NORM),
)


def _olmo(config: Described) -> LlmConfig:
    norm = LayerNorm(1e-5, has_bias=False, has_weight=False)
    attention = replace(hub_attention(config), qkv_clip=clip(config))
    layer = Layer(attention, _mlp(config), norm)
    layers = [layer] * config.size("num_hidden_layers")
    return hub_model(config, "olmo", LLAMA_NAMES, layers, norm)


def _olmo2(config: Described) -> LlmConfig:
    layers = [_layer(config)] * config.size("num_hidden_layers")
    return hub_model(config, "olmo2", _NAMES, layers, _norm(config))


def _olmo3(config: Described) -> LlmConfig:
    theta = 500_000.0
    full = _layer(config, RopeRules(theta, layer_type=FULL))
    local = _layer(config.without("rope_scaling"), RopeRules(theta, "", layer_type=SLIDING))
    window = config.size("sliding_window", 4096)
    kinds = {FULL: full, SLIDING: replace(local, attention=replace(local.attention, window=window))}
    types = layer_types(config, every(4, config.size("num_hidden_layers")))
    return hub_model(config, "olmo3", _NAMES, [kinds[word] for word in types], _norm(config))


def clip(config: Described) -> float:
    """Null for none."""
    return 0.0 if config.get("clip_qkv") is None else config.number("clip_qkv")


def _norm(config: Described) -> RmsNorm:
    return RmsNorm(config.number("rms_norm_eps", 1e-5))


def _mlp(config: Described) -> GatedMlp:
    return GatedMlp(config.size("intermediate_size"), activation(config))


def _layer(config: Described, rules: RopeRules | None = None) -> Layer:
    norm = _norm(config)
    attention = replace(hub_attention(config, rules), head_norm=norm, norm_span=NormSpan.ALL)
    return Layer(attention, _mlp(config), norm, Arrangement.POST_NORM)


_KEYS = GgufKeys({"attention.clamp_kqv": "clip_qkv", "attention.layer_norm_epsilon": ""})
OLMO = Family("olmo", "OlmoForCausalLM", _olmo, gguf_reader(_olmo, "olmo", _KEYS))
OLMO2 = Family("olmo2", "Olmo2ForCausalLM", _olmo2, gguf_reader(_olmo2, "olmo2", GgufKeys()))
OLMO3 = Family("olmo3", "Olmo3ForCausalLM", _olmo3)
