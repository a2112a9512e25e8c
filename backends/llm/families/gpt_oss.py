"""gpt-oss (OpenAI, 2025): attention sinks, windows in every other layer, and experts whose gates
are limited. Its files have all experts of a layer as one tensor, mostly in MXFP4."""

from dataclasses import replace

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, gguf_reader
from trivet.backends.llm.families.hub import FULL, SLIDING, hub_attention, hub_model, layer_types
from trivet.backends.llm.families.kinds import Activation, GatedMlp, Layer, RmsNorm
from trivet.backends.llm.families.llama import HALVES_NAMES
from trivet.backends.llm.families.mixtures import mixture
from trivet.backends.llm.families.names import Names, Role, StackedExperts, weight
from trivet.backends.llm.families.rope import RopeRules

_LAYER = "model.layers.{layer}."
_MLP = f"{_LAYER}mlp."
_EXPERT = f"{_MLP}experts.{{expert}}."
_NAMES: Names = HALVES_NAMES.having(
    weight(f"{_LAYER}self_attn.sinks", Role.SINKS, is_bare=True),
    weight(
        f"{_LAYER}post_attention_layernorm",
        Role.MLP_NORM,
        gguf="blk.{layer}.post_attention_norm",
    ),
    weight(f"{_MLP}router", Role.ROUTER),
    weight(f"{_EXPERT}gate_proj", Role.EXPERT_GATE),
    weight(f"{_EXPERT}up_proj", Role.EXPERT_UP),
    weight(f"{_EXPERT}down_proj", Role.EXPERT_DOWN),
    stacked=(
        StackedExperts(f"{_MLP}experts.gate_up_proj", (Role.EXPERT_GATE, Role.EXPERT_UP)),
        StackedExperts(f"{_MLP}experts.down_proj", (Role.EXPERT_DOWN,)),
    ),
)
_ROPE = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
"""Where the file does not say."""


def _from_hub(given: Described) -> LlmConfig:
    config = given.renamed({"num_experts": "num_local_experts"})
    config.only("swiglu_alpha", 1.702)
    if "head_dim" not in config:
        config = config.having(head_dim=64)
    if not (config.get("rope_parameters") or config.get("rope_scaling")):
        config = config.having(rope_parameters=_ROPE)
    has_bias = config.flag("attention_bias", default=True)
    attention = replace(
        hub_attention(config, RopeRules(theta=150_000.0), num_kv_heads=8),
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
        has_sinks=True,
    )
    expert = GatedMlp(
        config.size("intermediate_size"),
        Activation.GELU_SIGMOID,
        has_bias=True,
        limit=config.number("swiglu_limit", 7.0),
        up_offset=1.0,
    )
    num_experts = config.size("num_local_experts", 128)
    mlp = replace(mixture(config, num_experts, 4, expert, is_normalised=True), has_router_bias=True)
    norm = RmsNorm(config.number("rms_norm_eps", 1e-5))
    window = config.size("sliding_window", 128)
    usual = [FULL if layer % 2 else SLIDING for layer in range(config.size("num_hidden_layers"))]
    layers = [
        Layer(replace(attention, window=window if word == SLIDING else 0), mlp, norm)
        for word in layer_types(config, usual)
    ]
    return hub_model(config, "gpt-oss", _NAMES, layers, norm)


_KEYS = GgufKeys(
    {"expert_count": "num_local_experts", "expert_feed_forward_length": "intermediate_size"},
    {"attention_bias": "attn_q.bias"},
    rope={"truncate": False},
)
GPT_OSS = Family(
    "gpt-oss", "GptOssForCausalLM", _from_hub, gguf_reader(_from_hub, "gpt-oss", _KEYS)
)
