"""DeepSeek V2 and V3 (2024): multi-head latent attention, and experts that are chosen by groups
beside those that all tokens share."""

from collections.abc import Sequence
from dataclasses import replace

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, Values, gguf_reader
from trivet.backends.llm.families.hub import activation, hub_model
from trivet.backends.llm.families.kinds import (
    ExpertMlp,
    GatedMlp,
    GroupedAttention,
    Latent,
    Layer,
    RmsNorm,
    Scoring,
)
from trivet.backends.llm.families.mixtures import (
    CORRECTED_KEYS,
    CORRECTED_NAMES,
    SIGMOID_GATING,
    SOFTMAX_GATING,
    in_groups,
    mixture,
    without_further,
)
from trivet.backends.llm.families.names import Names, Role, weight
from trivet.backends.llm.families.rope import hub_rope, yarn_scale

_ATTENTION = "model.layers.{layer}.self_attn."
_LATENT_NORM = RmsNorm(1e-6)
"""Whatever the others' eps is."""


def _names(*, has_query_latent: bool, interleaves: bool) -> Names:
    names = CORRECTED_NAMES.having(
        weight(f"{_ATTENTION}q_proj", Role.QUERY, interleaves=interleaves),
        weight(f"{_ATTENTION}kv_a_proj_with_mqa", Role.LATENT, interleaves=interleaves),
        weight(f"{_ATTENTION}kv_a_layernorm", Role.LATENT_NORM),
        weight(f"{_ATTENTION}kv_b_proj", Role.LATENT_UP),
    )
    if not has_query_latent:
        return names
    return names.having(
        weight(f"{_ATTENTION}q_a_proj", Role.QUERY_DOWN),
        weight(f"{_ATTENTION}q_a_layernorm", Role.QUERY_DOWN_NORM),
        weight(
            f"{_ATTENTION}q_b_proj",
            Role.QUERY,
            interleaves=interleaves,
            gguf="blk.{layer}.attn_q_b",
        ),
    )


def _v2(given: Described) -> LlmConfig:
    config = given.renamed({"num_experts": "n_routed_experts"})
    config.only("topk_method", "greedy", "group_limited_greedy")
    has_bias, act = config.flag("mlp_bias", default=False), activation(config)
    width = config.size("moe_intermediate_size", 1407)
    shared = GatedMlp(width * config.size("n_shared_experts", 2), act, has_bias)
    mlp = replace(
        mixture(
            config,
            config.size("n_routed_experts", 64),
            None,
            GatedMlp(width, act),
            is_normalised=False,  # whatever norm_topk_prob says
        ),
        shared=shared,
        has_share=False,
        has_exact_router=True,
        multiplier=config.number("routed_scaling_factor", 1.0),
        num_telling=1,
    )
    if config.get("topk_method") == "group_limited_greedy":
        mlp = in_groups(mlp, config.size("n_group"), config.size("topk_group"))
    dense = GatedMlp(config.size("intermediate_size"), act, has_bias)
    return _model(config, _mlps(config, dense, mlp, 0), interleaves=True)


def _v3(given: Described) -> LlmConfig:
    renamed = {
        "num_local_experts": "n_routed_experts",
        "num_nextn_predict_layers": "num_mtp_layers",
    }
    config = given.renamed(renamed)
    act, width = activation(config), config.size("moe_intermediate_size", 2048)
    mlp = replace(
        mixture(
            config,
            config.size("n_routed_experts", 256),
            8,
            GatedMlp(width, act),
            is_normalised=config.flag("norm_topk_prob", default=True),
        ),
        shared=GatedMlp(width * config.size("n_shared_experts", 1), act),
        has_share=False,
        has_exact_router=True,
        scoring=Scoring.SIGMOID,
        multiplier=config.number("routed_scaling_factor", 2.5),
    )
    mlp = in_groups(mlp, config.size("n_group", 8), config.size("topk_group", 4))
    dense = GatedMlp(config.size("intermediate_size"), act)
    interleaves = config.flag("rope_interleave", default=True)
    return _model(config, _mlps(config, dense, mlp, 3), interleaves=interleaves)


def _mlps(
    config: Described, dense: GatedMlp, experts: ExpertMlp, num_dense: int
) -> Sequence[GatedMlp | ExpertMlp]:
    """Of all layers; `num_dense`: the first, where the file does not say."""
    first = config.get("first_k_dense_replace", num_dense)
    return [
        dense if index < first else experts for index in range(config.size("num_hidden_layers"))
    ]


def _model(
    config: Described, mlps: Sequence[GatedMlp | ExpertMlp], *, interleaves: bool
) -> LlmConfig:
    attention = _attention(config)
    assert attention.latent is not None
    names = _names(has_query_latent=bool(attention.latent.query_rank), interleaves=interleaves)
    norm = RmsNorm(config.number("rms_norm_eps", 1e-6))
    layers = [Layer(attention, mlp, norm) for mlp in mlps]
    further = config.get("num_mtp_layers", 1) or 0
    return hub_model(config, "deepseek2", names, layers, norm, num_further_layers=further)


def _attention(config: Described) -> GroupedAttention:
    num_heads = config.size("num_attention_heads")
    if config.size("num_key_value_heads", num_heads) != num_heads:
        raise LoadFailed(
            f"config.json has num_key_value_heads {config['num_key_value_heads']}; with latent "
            f"attention all heads have keys and values of their own: num_attention_heads is "
            f"{num_heads}"
        )
    rank, rotated = config.size("kv_lora_rank", 512), config.size("qk_rope_head_dim", 64)
    plain = config.size("qk_nope_head_dim", 128)
    query_rank = config.get("q_lora_rank", 1536)
    rope = hub_rope(config, rotated)
    scale = (plain + rotated) ** -0.5
    if rope.scaling is not None and rope.scaling.all_dim_share:
        scale *= yarn_scale(rope.scaling.factor, rope.scaling.all_dim_share) ** 2
    has_bias = config.flag("attention_bias", default=False)
    return GroupedAttention(
        num_heads,
        1,
        rotated + rank,
        rope=replace(rope, size=rotated),
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
        score_multiplier=scale,
        latent=Latent(
            rank=rank,
            query_rank=0 if query_rank is None else config.size("q_lora_rank", 1536),
            plain_size=plain,
            value_size=config.size("v_head_dim", 128),
            norm=_LATENT_NORM,
        ),
    )


def _of_gguf(values: Described) -> LlmConfig:
    """Both are one architecture of GGUF's."""
    gating = values.get("gating", SOFTMAX_GATING)
    if gating == SIGMOID_GATING:
        return _v3(values)
    if gating != SOFTMAX_GATING:
        raise LoadFailed(
            f"the GGUF file has expert_gating_func {gating}; {SOFTMAX_GATING}, softmax, and "
            f"{SIGMOID_GATING}, sigmoids, are computed"
        )
    if values.get("norm_topk_prob"):
        raise LoadFailed(
            "the GGUF file has expert_weights_norm true, with which this architecture is computed "
            "with sigmoids only (expert_gating_func 2)"
        )
    is_grouped = values.get("n_group", 1) > 1
    return _v2(values.having(topk_method="group_limited_greedy" if is_grouped else "greedy"))


def _derived(values: Values) -> Values:
    """Files say how long keys and values are, in newer ones beside what is cached of them."""
    rotated = values["rotated"]
    key = values.get("whole_key", values.get("key"))
    value = values.get("whole_value", values.get("value"))
    if key is None or value is None:
        raise LoadFailed("the GGUF file has no deepseek2.attention.key_length, or no value_length")
    return {
        "num_key_value_heads": values["num_attention_heads"],
        "q_lora_rank": values.get("q_lora_rank"),
        "qk_rope_head_dim": rotated,
        "qk_nope_head_dim": key - rotated,
        "v_head_dim": value,
        "head_dim": rotated,
        "n_group": values.get("n_group", 1),
        "topk_group": values.get("topk_group", 1),
        **without_further(values),
    }


_KEYS = GgufKeys(
    {
        **CORRECTED_KEYS,
        "attention.q_lora_rank": "q_lora_rank",
        "attention.kv_lora_rank": "kv_lora_rank",
        "attention.key_length": "key",
        "attention.key_length_mla": "whole_key",
        "attention.value_length": "value",
        "attention.value_length_mla": "whole_value",
        "rope.dimension_count": "rotated",
    },
    derived=_derived,
    scales_scores=True,
)
DEEPSEEK2 = Family(
    "deepseek2", "DeepseekV2ForCausalLM", _v2, gguf_reader(_of_gguf, "deepseek2", _KEYS)
)
DEEPSEEK3 = Family("deepseek2", "DeepseekV3ForCausalLM", _v3)
