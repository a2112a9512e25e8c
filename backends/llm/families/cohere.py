"""Command R (Cohere, 2024), with attention and MLP side by side; Command R7B and A (2025), whose
layers that see all know no positions."""

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
    GroupedAttention,
    Layer,
    LayerNorm,
    NormSpan,
)
from trivet.backends.llm.families.llama import HALVES_NAMES
from trivet.backends.llm.families.names import Role, weight
from trivet.backends.llm.families.rope import RopeRules

_ATTENTION = "model.layers.{layer}.self_attn."
_NAMES = HALVES_NAMES.having(
    weight(f"{_ATTENTION}q_proj", Role.QUERY, interleaves=True),
    weight(f"{_ATTENTION}k_proj", Role.KEY, interleaves=True),
    weight(f"{_ATTENTION}q_norm", Role.QUERY_NORM, interleaves=True),
    weight(f"{_ATTENTION}k_norm", Role.KEY_NORM, interleaves=True),
)


def _cohere(config: Described) -> LlmConfig:
    attention = hub_attention(config, RopeRules(theta=500_000.0))
    if config.flag("use_qk_norm", default=False):
        attention = replace(attention, head_norm=_norm(config), norm_span=NormSpan.OWN)
    layers = [_layer(config, attention)] * config.size("num_hidden_layers")
    return _model(config, "command-r", layers)


def _cohere2(config: Described) -> LlmConfig:
    attention = hub_attention(config.without("head_dim"))
    pattern = config.size("sliding_window_pattern", 4)
    types = layer_types(config, every(pattern, config.size("num_hidden_layers")))
    kinds = {
        FULL: replace(attention, rope=None),
        SLIDING: replace(attention, window=config.size("sliding_window", 4096)),
    }
    return _model(config, "cohere2", [_layer(config, kinds[word]) for word in types])


def _norm(config: Described) -> LayerNorm:
    return LayerNorm(config.number("layer_norm_eps", 1e-5), has_bias=False)


def _layer(config: Described, attention: GroupedAttention) -> Layer:
    mlp = GatedMlp(config.size("intermediate_size"), activation(config))
    return Layer(attention, mlp, _norm(config), Arrangement.PARALLEL)


def _model(config: Described, architecture: str, layers: list[Layer]) -> LlmConfig:
    multiplier = config.number("logit_scale", 0.0625)
    return hub_model(
        config, architecture, _NAMES, layers, _norm(config), ties=True, logit_multiplier=multiplier
    )


_SCALE = {"logit_scale": "logit_scale"}
_KEYS = GgufKeys(_SCALE, {"attention_bias": "attn_q.bias", "use_qk_norm": "attn_q_norm.weight"})
_KEYS2 = GgufKeys(_SCALE, {"attention_bias": "attn_q.bias"})
COHERE = Family("command-r", "CohereForCausalLM", _cohere, gguf_reader(_cohere, "command-r", _KEYS))
COHERE2 = Family(
    "cohere2", "Cohere2ForCausalLM", _cohere2, gguf_reader(_cohere2, "cohere2", _KEYS2)
)
