"""Mixtures of experts: Mixtral (2023), Qwen2-MoE with a shared expert (2024), OLMoE (2024),
Qwen3-MoE and GLM-4.5 (2025)."""

from collections.abc import Iterable
from dataclasses import replace

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, Values, gguf_reader
from trivet.backends.llm.families.hub import (
    SLIDING,
    HeadSizes,
    activation,
    hub_attention,
    hub_model,
    layer_types,
)
from trivet.backends.llm.families.kinds import (
    ExpertMlp,
    GatedMlp,
    GroupedAttention,
    Layer,
    Mlp,
    NormSpan,
    RmsNorm,
    Scoring,
)
from trivet.backends.llm.families.llama import LLAMA_NAMES, one_window
from trivet.backends.llm.families.mixtures import (
    CORRECTED_KEYS,
    CORRECTED_NAMES,
    EXPERT_NAMES,
    SIGMOID_GATING,
    in_groups,
    mixture,
    without_further,
)
from trivet.backends.llm.families.names import Names, Role, weight
from trivet.backends.llm.families.olmo import clip
from trivet.backends.llm.families.rope import RopeRules, hub_rope

_LAYER = "model.layers.{layer}."
_MIXTRAL = f"{_LAYER}block_sparse_moe."
MIXTRAL_NAMES: Names = LLAMA_NAMES.having(
    weight(f"{_MIXTRAL}gate", Role.ROUTER),
    weight(f"{_MIXTRAL}experts.{{expert}}.w1", Role.EXPERT_GATE),
    weight(f"{_MIXTRAL}experts.{{expert}}.w3", Role.EXPERT_UP),
    weight(f"{_MIXTRAL}experts.{{expert}}.w2", Role.EXPERT_DOWN),
)
_GLM_NAMES: Names = CORRECTED_NAMES.having(
    weight(
        f"{_LAYER}post_attention_layernorm",
        Role.MLP_NORM,
        gguf="blk.{layer}.post_attention_norm",
    ),
)


def _mixtral(given: Described) -> LlmConfig:
    config = given.renamed({"num_experts": "num_local_experts"})
    heads = HeadSizes.of(config, num_kv_heads=8)
    rope = hub_rope(config, heads.head_dim, RopeRules(theta=1_000_000.0))
    attention = replace(_attention(heads), rope=rope, window=one_window(config))
    expert = GatedMlp(config.size("intermediate_size"), activation(config))
    num_experts = config.size("num_local_experts", 8)
    mlp = mixture(config, num_experts, 2, expert, is_normalised=True, has_exact_shares=True)
    norm = RmsNorm(config.number("rms_norm_eps", 1e-5))
    layers = [Layer(attention, mlp, norm)] * config.size("num_hidden_layers")
    return hub_model(config, "mixtral", MIXTRAL_NAMES, layers, norm)


def _qwen2_moe(given: Described) -> LlmConfig:
    config = given.renamed({"num_local_experts": "num_experts"})
    heads = HeadSizes.of(config.without("head_dim"), num_kv_heads=16)
    attention = replace(
        _attention(heads),
        rope=hub_rope(config, heads.head_dim),
        has_qkv_bias=config.flag("qkv_bias", default=True),
    )
    num_layers = config.size("num_hidden_layers")
    window, default = 0, ["full_attention"] * num_layers
    if config.flag("use_sliding_window", default=False):
        window = one_window(config, 4096)
        last = config.get("max_window_layers", 28)
        default = [
            SLIDING if layer % 2 == 0 and layer < last else word
            for layer, word in enumerate(default)
        ]
    windows = [window if word == SLIDING else 0 for word in layer_types(config, default)]
    act = activation(config)
    shared = GatedMlp(config.size("shared_expert_intermediate_size", 5632), act)
    expert = GatedMlp(config.size("moe_intermediate_size", 1408), act)
    mixed = replace(_qwen_mixture(config, 60, 4, expert), shared=shared)
    return _qwen_model(config, "qwen2moe", attention, mixed, windows)


def _qwen3_moe(given: Described) -> LlmConfig:
    config = given.renamed({"num_experts": "num_local_experts"})
    config = config.renamed({"num_local_experts": "num_experts"})
    is_windowed = config.flag("use_sliding_window", default=False)
    attention = replace(
        hub_attention(config, num_kv_heads=4),
        head_norm=RmsNorm(config.number("rms_norm_eps", 1e-6)),
    )
    expert = GatedMlp(config.size("moe_intermediate_size", 768), activation(config))
    windows = [one_window(config, 4096) if is_windowed else 0] * config.size("num_hidden_layers")
    mixed = _qwen_mixture(config, 128, 8, expert)
    return _qwen_model(config, "qwen3moe", attention, mixed, windows)


def _olmoe(given: Described) -> LlmConfig:
    config = given.renamed({"num_local_experts": "num_experts"})
    norm = RmsNorm(config.number("rms_norm_eps", 1e-5))
    attention = replace(
        hub_attention(config), head_norm=norm, norm_span=NormSpan.ALL, qkv_clip=clip(config)
    )
    expert = GatedMlp(config.size("intermediate_size"), activation(config))
    mlp = _qwen_mixture(config, 64, 8, expert)
    layers = [Layer(attention, mlp, norm)] * config.size("num_hidden_layers")
    return hub_model(config, "olmoe", EXPERT_NAMES, layers, norm)


def _glm4_moe(given: Described) -> LlmConfig:
    renamed = {
        "num_local_experts": "n_routed_experts",
        "num_nextn_predict_layers": "num_mtp_layers",
    }
    config = given.renamed(renamed)
    heads = HeadSizes.of(config, num_kv_heads=8)
    norm = RmsNorm(config.number("rms_norm_eps", 1e-5))
    attention = replace(
        _attention(heads),
        rope=hub_rope(config, heads.head_dim, RopeRules(share=0.5)),
        head_norm=norm if config.flag("use_qk_norm", default=False) else None,
        has_qkv_bias=config.flag("attention_bias", default=False),
    )
    act, width = activation(config), config.size("moe_intermediate_size", 1408)
    mixed = mixture(
        config,
        config.size("n_routed_experts", 128),
        8,
        GatedMlp(width, act),
        is_normalised=config.flag("norm_topk_prob", default=True),
    )
    mixed = replace(
        mixed,
        shared=GatedMlp(width * config.size("n_shared_experts", 1), act),
        has_share=False,
        has_exact_router=True,
        scoring=Scoring.SIGMOID,
        multiplier=config.number("routed_scaling_factor", 1.0),
    )
    mixed = in_groups(mixed, config.size("n_group", 1), config.size("topk_group", 1))
    dense = GatedMlp(config.size("intermediate_size"), act)
    num_dense = config.get("first_k_dense_replace", 1)
    layers = [
        Layer(attention, mixed if index >= num_dense else dense, norm)
        for index in range(config.size("num_hidden_layers"))
    ]
    further = config.get("num_mtp_layers", 1) or 0
    return hub_model(config, "glm4moe", _GLM_NAMES, layers, norm, num_further_layers=further)


def _attention(heads: HeadSizes) -> GroupedAttention:
    return GroupedAttention(heads.num_heads, heads.num_kv_heads, heads.head_dim, rope=None)


def _qwen_mixture(
    config: Described, num_experts: int, num_active: int, expert: GatedMlp
) -> ExpertMlp:
    is_normalised = config.flag("norm_topk_prob", default=False)
    num_experts = config.size("num_experts", num_experts)
    return mixture(config, num_experts, num_active, expert, is_normalised=is_normalised)


def _qwen_model(
    config: Described,
    architecture: str,
    attention: GroupedAttention,
    mixed: ExpertMlp,
    windows: Iterable[int],
) -> LlmConfig:
    """Of layers with a mixture, but for those that the file says have a dense MLP."""
    norm = RmsNorm(config.number("rms_norm_eps", 1e-6))
    dense = GatedMlp(config.size("intermediate_size"), mixed.expert.activation)
    step, only = config.size("decoder_sparse_step", 1), config.get("mlp_only_layers") or []
    layers = []
    for index, window in enumerate(windows):
        is_mixture = index not in only and (index + 1) % step == 0
        mlp: Mlp = mixed if is_mixture else dense
        layers.append(Layer(replace(attention, window=window), mlp, norm))
    return hub_model(config, architecture, EXPERT_NAMES, layers, norm)


_WIDTH = {"expert_feed_forward_length": "moe_intermediate_size"}
_QWEN2_KEYS = GgufKeys(
    _WIDTH | {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"},
    {"qkv_bias": "attn_q.bias"},
    {"norm_topk_prob": False},
)
_QWEN3_KEYS = GgufKeys(_WIDTH, constants={"norm_topk_prob": True})
_OLMOE_KEYS = GgufKeys(constants={"norm_topk_prob": False})
_MIXTRAL_KEYS = GgufKeys({"expert_count": "num_local_experts"})
MIXTRAL = Family(
    "llama",
    "MixtralForCausalLM",
    _mixtral,
    gguf_reader(_mixtral, "llama", _MIXTRAL_KEYS),
    is_of_experts=True,
)
QWEN2_MOE = Family(
    "qwen2moe",
    "Qwen2MoeForCausalLM",
    _qwen2_moe,
    gguf_reader(_qwen2_moe, "qwen2moe", _QWEN2_KEYS),
)
QWEN3_MOE = Family(
    "qwen3moe",
    "Qwen3MoeForCausalLM",
    _qwen3_moe,
    gguf_reader(_qwen3_moe, "qwen3moe", _QWEN3_KEYS),
)
OLMOE = Family("olmoe", "OlmoeForCausalLM", _olmoe, gguf_reader(_olmoe, "olmoe", _OLMOE_KEYS))


def _glm_derived(values: Values) -> Values:
    if values.get("gating", SIGMOID_GATING) != SIGMOID_GATING:
        raise LoadFailed(
            f"the GGUF file has expert_gating_func {values['gating']}; models of this architecture "
            f"are computed with {SIGMOID_GATING}, sigmoids, only"
        )
    return without_further(values)


_GLM_KEYS = GgufKeys(
    CORRECTED_KEYS,
    {"attention_bias": "attn_q.bias", "use_qk_norm": "attn_q_norm.weight"},
    derived=_glm_derived,
    rotates_part=True,
)
GLM4_MOE = Family(
    "glm4moe", "Glm4MoeForCausalLM", _glm4_moe, gguf_reader(_glm4_moe, "glm4moe", _GLM_KEYS)
)
