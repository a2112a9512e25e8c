"""Gemma (2024), Gemma 2 with windows and caps, and the text models of Gemma 3 (2025).

Sources: Gemma Team, Gemma; Gemma 2; Gemma 3 technical reports.
"""

from dataclasses import replace

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, Values, gguf_reader
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
    GroupedAttention,
    Layer,
    RmsNorm,
)
from trivet.backends.llm.families.llama import HALVES_NAMES
from trivet.backends.llm.families.names import Names, Role, weight
from trivet.backends.llm.families.rope import RopeRules, hub_rope

_LAYER = "model.layers.{layer}."
_OFFSET = {"gguf_offset": 1.0}
_GEMMA_NAMES = HALVES_NAMES.having(
    weight(f"{_LAYER}input_layernorm", Role.ATTENTION_NORM, **_OFFSET),
    weight(f"{_LAYER}post_attention_layernorm", Role.MLP_NORM, **_OFFSET),
    weight(f"{_LAYER}self_attn.q_norm", Role.QUERY_NORM, **_OFFSET),
    weight(f"{_LAYER}self_attn.k_norm", Role.KEY_NORM, **_OFFSET),
    weight("model.norm", Role.FINAL_NORM, **_OFFSET),
)
_SANDWICH_NAMES: Names = _GEMMA_NAMES.having(
    weight(f"{_LAYER}post_attention_layernorm", Role.ATTENTION_POST_NORM, **_OFFSET),
    weight(f"{_LAYER}pre_feedforward_layernorm", Role.MLP_NORM, **_OFFSET),
    weight(f"{_LAYER}post_feedforward_layernorm", Role.MLP_POST_NORM, **_OFFSET),
)


def _gemma(config: Described) -> LlmConfig:
    if config.get("hidden_act") == "gelu":
        config = config.having(hidden_act="gelu_pytorch_tanh")  # as transformers takes it
    act = activation(config, default="gelu_pytorch_tanh")
    attention = replace(_attention(config), score_multiplier=None)
    mlp = GatedMlp(config.size("intermediate_size"), act)
    layer = Layer(attention, mlp, _norm(config))
    return _model(config, "gemma", _GEMMA_NAMES, [layer] * config.size("num_hidden_layers"))


def _gemma2(config: Described) -> LlmConfig:
    attention = replace(_attention(config), score_cap=_cap(config, "attn_logit_softcapping", 50.0))
    types = layer_types(config, every(2, config.size("num_hidden_layers")))
    windowed = replace(attention, window=config.size("sliding_window", 4096))
    kinds = {FULL: attention, SLIDING: windowed}
    layers = [_sandwich(config, kinds[word]) for word in types]
    cap = _cap(config, "final_logit_softcapping", 30.0)
    return _model(config, "gemma2", _SANDWICH_NAMES, layers, cap)


def _gemma3(config: Described) -> LlmConfig:
    rules = RopeRules(theta=1_000_000.0, layer_type=FULL)
    local = RopeRules(theta_key="rope_local_base_freq", layer_type=SLIDING)
    attention = replace(
        _attention(config, rules),
        head_norm=_norm(config),
        score_cap=_cap(config, "attn_logit_softcapping", 0.0),
    )
    windowed = replace(
        attention,
        window=config.size("sliding_window", 4096),
        rope=hub_rope(config.without("rope_scaling"), attention.head_dim, local),
    )
    pattern = config.size("sliding_window_pattern", 6)
    types = layer_types(config, every(pattern, config.size("num_hidden_layers")))
    kinds = {FULL: attention, SLIDING: windowed}
    layers = [_sandwich(config, kinds[word]) for word in types]
    cap = _cap(config, "final_logit_softcapping", 0.0)
    return _model(config, "gemma3", _SANDWICH_NAMES, layers, cap)


def _norm(config: Described) -> RmsNorm:
    return RmsNorm(config.number("rms_norm_eps", 1e-6), offset=1.0)


def _attention(config: Described, rules: RopeRules | None = None) -> GroupedAttention:
    config.only("use_bidirectional_attention", None, False)
    multiplier = config.number("query_pre_attn_scalar", 256) ** -0.5
    return replace(hub_attention(config, rules), score_multiplier=multiplier)


def _sandwich(config: Described, attention: GroupedAttention) -> Layer:
    act = activation(config, "hidden_activation", "gelu_pytorch_tanh")
    mlp = GatedMlp(config.size("intermediate_size"), act)
    return Layer(attention, mlp, _norm(config), Arrangement.SANDWICH)


def _cap(config: Described, name: str, default: float) -> float:
    """Null for none."""
    return 0.0 if config.get(name, default) is None else config.number(name, default)


def _model(
    config: Described, architecture: str, names: Names, layers: list[Layer], cap: float = 0.0
) -> LlmConfig:
    return hub_model(
        config,
        architecture,
        names,
        layers,
        _norm(config),
        ties=True,
        embedding_multiplier=config.size("hidden_size") ** 0.5,
        logit_cap=cap,
    )


def _scale(values: Values) -> Values:
    """llama.cpp's: files do not say it, and the 27B models differ from all others."""
    is_27b = values["num_hidden_layers"] in (46, 62)
    by_heads = values["hidden_size"] // values["num_attention_heads"]
    return {"query_pre_attn_scalar": by_heads if is_27b else values["head_dim"]}


_CAPS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
GEMMA = Family("gemma", "GemmaForCausalLM", _gemma, gguf_reader(_gemma, "gemma", GgufKeys()))
GEMMA2 = Family(
    "gemma2",
    "Gemma2ForCausalLM",
    _gemma2,
    gguf_reader(_gemma2, "gemma2", GgufKeys(_CAPS, derived=_scale)),
)
GEMMA3 = Family(
    "gemma3",
    "Gemma3ForCausalLM",
    _gemma3,
    gguf_reader(_gemma3, "gemma3", GgufKeys(_CAPS, derived=_scale, is_typed=True)),
)
