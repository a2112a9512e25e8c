"""StableLM (Stability AI, 2023) and Nemotron (NVIDIA, 2024): a part of each head is rotated, norms
are layer norms."""

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, gguf_reader
from trivet.backends.llm.families.hub import HeadSizes, activation, hub_attention, hub_model
from trivet.backends.llm.families.kinds import (
    Arrangement,
    GatedMlp,
    GroupedAttention,
    Layer,
    LayerNorm,
    PlainMlp,
)
from trivet.backends.llm.families.llama import HALVES_NAMES
from trivet.backends.llm.families.names import Role, weight
from trivet.backends.llm.families.rope import RopeRules, hub_rope

_LAYER = "model.layers.{layer}."
_NEMOTRON_NAMES = HALVES_NAMES.having(
    weight(f"{_LAYER}input_layernorm", Role.ATTENTION_NORM, gguf_offset=1.0),
    weight(f"{_LAYER}post_attention_layernorm", Role.MLP_NORM, gguf_offset=1.0),
    weight("model.norm", Role.FINAL_NORM, gguf_offset=1.0),
)


def _stablelm(config: Described) -> LlmConfig:
    config.only("qk_layernorm", False)
    heads = HeadSizes.of(config.without("head_dim"), num_kv_heads=32)
    norm = LayerNorm(config.number("layer_norm_eps", 1e-5))
    attention = GroupedAttention(
        heads.num_heads,
        heads.num_kv_heads,
        heads.head_dim,
        rope=hub_rope(config, heads.head_dim, RopeRules(share=0.25)),
        has_qkv_bias=config.flag("use_qkv_bias", default=False),
    )
    is_parallel = config.flag("use_parallel_residual", default=False)
    mlp = GatedMlp(config.size("intermediate_size"), activation(config))
    arrangement = Arrangement.PARALLEL if is_parallel else Arrangement.PRE_NORM
    layers = [Layer(attention, mlp, norm, arrangement)] * config.size("num_hidden_layers")
    return hub_model(config, "stablelm", HALVES_NAMES, layers, norm)


def _nemotron(config: Described) -> LlmConfig:
    attention = hub_attention(config, RopeRules(share=0.5))
    norm = LayerNorm(config.number("norm_eps", 1e-5), offset=1.0)
    act = activation(config, default="relu2")
    mlp = PlainMlp(config.size("intermediate_size"), act, config.flag("mlp_bias", default=False))
    layers = [Layer(attention, mlp, norm)] * config.size("num_hidden_layers")
    return hub_model(config, "nemotron", _NEMOTRON_NAMES, layers, norm)


_KEYS = GgufKeys(
    {"use_parallel_residual": "use_parallel_residual"},
    {"use_qkv_bias": "attn_q.bias", "qk_layernorm": "attn_q_norm.weight"},
    rotates_part=True,
)
STABLELM = Family(
    "stablelm", "StableLmForCausalLM", _stablelm, gguf_reader(_stablelm, "stablelm", _KEYS)
)
_NEMOTRON_KEYS = GgufKeys(
    {"attention.layer_norm_epsilon": "norm_eps"},
    {"attention_bias": "attn_q.bias", "mlp_bias": "ffn_up.bias"},
    rotates_part=True,
)
NEMOTRON = Family(
    "nemotron", "NemotronForCausalLM", _nemotron, gguf_reader(_nemotron, "nemotron", _NEMOTRON_KEYS)
)
