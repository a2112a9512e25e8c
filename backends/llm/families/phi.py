"""Phi-1, 1.5 and 2 (2023), with attention and MLP side by side; Phi-3 and 4 (2024), the Llama shape
with joined matrices."""

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
    LayerNorm,
    PlainMlp,
    RmsNorm,
)
from trivet.backends.llm.families.llama import HALVES_NAMES, one_window
from trivet.backends.llm.families.names import Role, weight
from trivet.backends.llm.families.rope import RopeRules, hub_rope

_LAYER = "model.layers.{layer}."
_PHI_NAMES = HALVES_NAMES.having(
    weight(f"{_LAYER}self_attn.q_layernorm", Role.QUERY_NORM),
    weight(f"{_LAYER}self_attn.k_layernorm", Role.KEY_NORM),
    weight(f"{_LAYER}self_attn.dense", Role.OUTPUT),
    weight(f"{_LAYER}mlp.fc1", Role.UP),
    weight(f"{_LAYER}mlp.fc2", Role.DOWN),
    weight("model.final_layernorm", Role.FINAL_NORM),
)
_PHI3_NAMES = HALVES_NAMES.having(
    weight(f"{_LAYER}self_attn.qkv_proj", Role.QUERY, Role.KEY, Role.VALUE),
    weight(f"{_LAYER}mlp.gate_up_proj", Role.GATE, Role.UP),
)


def _phi(config: Described) -> LlmConfig:
    heads = HeadSizes.of(config)
    norm = LayerNorm(config.number("layer_norm_eps", 1e-5))
    attention = GroupedAttention(
        heads.num_heads,
        heads.num_kv_heads,
        heads.head_dim,
        rope=hub_rope(config, heads.head_dim, RopeRules(share=0.5)),
        head_norm=norm if config.flag("qk_layernorm", default=False) else None,
        has_qkv_bias=True,
        has_output_bias=True,
    )
    act = activation(config, default="gelu_new")
    mlp = PlainMlp(config.size("intermediate_size"), act)
    layer = Layer(attention, mlp, norm, Arrangement.PARALLEL)
    layers = [layer] * config.size("num_hidden_layers")
    return hub_model(config, "phi2", _PHI_NAMES, layers, norm, has_head_bias=True)


def _phi3(config: Described) -> LlmConfig:
    heads = HeadSizes.of(config)
    norm = RmsNorm(config.number("rms_norm_eps", 1e-5))
    # Files of before August 2024 call it "su", and some "yarn", which it is not.
    longrope = {"su": "longrope", "yarn": "longrope"}
    rules = RopeRules(share=1.0, original_positions=4096, renamed=longrope)
    attention = GroupedAttention(
        heads.num_heads,
        heads.num_kv_heads,
        heads.head_dim,
        rope=hub_rope(config, heads.head_dim, rules),
        window=one_window(config),
    )
    layer = Layer(attention, GatedMlp(config.size("intermediate_size"), activation(config)), norm)
    layers = [layer] * config.size("num_hidden_layers")
    return hub_model(config, "phi3", _PHI3_NAMES, layers, norm)


PHI = Family("phi2", "PhiForCausalLM", _phi, gguf_reader(_phi, "phi2", GgufKeys(rotates_part=True)))
PHI3 = Family(
    "phi3", "Phi3ForCausalLM", _phi3, gguf_reader(_phi3, "phi3", GgufKeys(rotates_part=True))
)
