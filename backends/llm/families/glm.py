"""GLM-4 (Z.ai, 2024, 2025): half of each head is rotated by neighbours; the gate is joined to what
it lets through."""

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, gguf_reader
from trivet.backends.llm.families.hub import HeadSizes, activation, hub_model
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
_NAMES: Names = HALVES_NAMES.having(
    weight(f"{_LAYER}self_attn.q_proj", Role.QUERY, interleaves=True),
    weight(f"{_LAYER}self_attn.k_proj", Role.KEY, interleaves=True),
    weight(f"{_LAYER}mlp.gate_up_proj", Role.GATE, Role.UP),
)
_SANDWICH_NAMES: Names = _NAMES.having(
    weight(f"{_LAYER}post_self_attn_layernorm", Role.ATTENTION_POST_NORM),
    weight(f"{_LAYER}post_mlp_layernorm", Role.MLP_POST_NORM),
)


def _glm(config: Described) -> LlmConfig:
    return _model(config, "glm", _NAMES, Arrangement.PRE_NORM)


def _glm4(config: Described) -> LlmConfig:
    return _model(config, "glm4", _SANDWICH_NAMES, Arrangement.SANDWICH)


def _model(
    config: Described, architecture: str, names: Names, arrangement: Arrangement
) -> LlmConfig:
    heads = HeadSizes.of(config, num_kv_heads=2)
    norm = RmsNorm(config.number("rms_norm_eps", 1.5625e-7))
    attention = GroupedAttention(
        heads.num_heads,
        heads.num_kv_heads,
        heads.head_dim,
        rope=hub_rope(config, heads.head_dim, RopeRules(share=0.5)),
        has_qkv_bias=config.flag("attention_bias", default=True),
    )
    mlp = GatedMlp(config.size("intermediate_size"), activation(config))
    layers = [Layer(attention, mlp, norm, arrangement)] * config.size("num_hidden_layers")
    return hub_model(config, architecture, names, layers, norm)


GLM = Family("glm", "GlmForCausalLM", _glm)
_KEYS = GgufKeys(biases={"attention_bias": "attn_q.bias"}, rotates_part=True)
GLM4 = Family("glm4", "Glm4ForCausalLM", _glm4, gguf_reader(_glm4, "glm4", _KEYS))
