"""Granite 3 (IBM, 2024): the Llama shape with multipliers."""

from dataclasses import replace

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, gguf_reader
from trivet.backends.llm.families.llama import LLAMA_NAMES, hub_shape


def _from_hub(config: Described) -> LlmConfig:
    has_bias = config.flag("attention_bias", default=False)
    shape = hub_shape(
        config,
        "granite",
        names=LLAMA_NAMES,
        has_mlp_bias=config.flag("mlp_bias", default=False),
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
    )
    return multiplied(shape.config(), config)


def multiplied(model: LlmConfig, config: Described) -> LlmConfig:
    """With Granite's multipliers."""
    scores = config.number("attention_multiplier", 1.0)
    residual = config.number("residual_multiplier", 1.0)
    layers = tuple(
        replace(
            layer,
            attention=replace(layer.attention, score_multiplier=scores),
            residual_multiplier=residual,
        )
        for layer in model.layers
    )
    return replace(
        model,
        layers=layers,
        embedding_multiplier=config.number("embedding_multiplier", 1.0),
        logit_multiplier=1 / config.number("logits_scaling", 1.0),
    )


_KEYS = GgufKeys(
    {
        "attention.scale": "attention_multiplier",
        "embedding_scale": "embedding_multiplier",
        "residual_scale": "residual_multiplier",
        "logit_scale": "logits_scaling",
    },
    {"attention_bias": "attn_q.bias", "mlp_bias": "ffn_up.bias"},
)
GRANITE = Family(
    "granite", "GraniteForCausalLM", _from_hub, gguf_reader(_from_hub, "granite", _KEYS)
)
