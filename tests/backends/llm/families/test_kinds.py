"""Whatever changes what is computed is a Need, so that nobody computes a kind that he has never
heard of."""

from dataclasses import fields, replace
from typing import Any

import pytest

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.kinds import (
    Activation,
    Arrangement,
    ExpertMlp,
    GatedMlp,
    GroupedAttention,
    Latent,
    Layer,
    LayerNorm,
    NormSpan,
    PlainMlp,
    RmsNorm,
    Rope,
    Scoring,
)
from trivet.backends.llm.families.llama import LlamaShape
from trivet.backends.llm.families.names import Names, Role
from trivet.backends.llm.families.needs import Need
from trivet.backends.llm.implementations import FUSED, NATIVE, TORCH, missing

NORM = RmsNorm(1e-5)
ATTENTION = GroupedAttention(6, 2, 16, Rope(500.0))
LAYER = Layer(ATTENTION, GatedMlp(96), NORM)
EXPERTS = ExpertMlp(4, 2, GatedMlp(96))
NUMBERS = {
    "eps", "num_heads", "num_kv_heads", "head_dim", "intermediate_size", "score_multiplier",
    "num_experts", "num_active", "is_normalised", "multiplier", "num_active_groups", "has_share",
    "num_telling", "has_exact_router", "has_exact_shares",
}  # fmt: skip
"""Sizes and the like, which an implementation asks about by itself; whoever computes experts asks
how their shares are made, and how exactly."""
BY_WEIGHTS = {"has_weight"}
"""What is seen in the weights alone, which are taken accordingly."""
OTHERS: dict[str, Any] = {
    "rope": None, "window": 16, "head_norm": NORM, "has_qkv_bias": True, "has_output_bias": True,
    "activation": Activation.GELU_TANH, "norm": LayerNorm(1e-5), "mlp": PlainMlp(96),
    "offset": 1.0, "norm_span": NormSpan.ALL, "score_cap": 30.0, "slopes": (0.5,) * 6,
    "qkv_clip": 8.0, "arrangement": Arrangement.SANDWICH, "residual_multiplier": 0.5,
    "expert": GatedMlp(96, Activation.GELU), "shared": GatedMlp(32),
    "scoring": Scoring.SIGMOID, "num_groups": 2, "has_router_bias": True, "limit": 7.0,
    "up_offset": 1.0, "has_sinks": True, "latent": Latent(8, 0, 8, 8, NORM),
}  # fmt: skip
"""For each field, a value that no kind has by itself."""
ONE_OF_ITS_KIND = {"attention"}


@pytest.mark.parametrize(
    "kind",
    [NORM, LayerNorm(1e-5), ATTENTION, GatedMlp(96), PlainMlp(96), EXPERTS, LAYER],
    ids=repr,
)
def test_each_field_that_changes_what_is_computed_changes_the_needs(kind: Any) -> None:
    for field in fields(kind):
        if field.name in NUMBERS | BY_WEIGHTS | ONE_OF_ITS_KIND:
            continue
        value = getattr(kind, field.name)
        other = not value if field.name == "has_bias" else OTHERS[field.name]
        changed = replace(kind, **{field.name: other})
        assert set(changed.needs()) != set(kind.needs()), field.name


def llama(**changes: Any) -> LlmConfig:
    shape = LlamaShape(
        architecture="llama", hidden_size=96, num_layers=3, num_heads=6, num_kv_heads=2,
        head_dim=16, intermediate_size=96, vocabulary_size=120, max_positions=256,
        rms_norm_eps=1e-5, rope_theta=500.0,
    )  # fmt: skip
    return replace(shape.config(), **changes)


def test_all_implementations_compute_the_llama_shape() -> None:
    for each in (NATIVE, FUSED, TORCH):
        assert missing(each.computes, llama()) == ""


def test_a_layer_that_is_not_like_the_others_is_named() -> None:
    other = replace(LAYER, mlp=GatedMlp(96, Activation.GELU))
    config = llama(layers=(LAYER, LAYER, other))
    assert config.needs()[Need.DIFFERENT_LAYERS] == "layer 2"
    said = "it computes no gelu (layer 2), it computes no layers that differ (layer 2)"
    assert missing(FUSED.computes, config) == said
    assert missing(TORCH.computes, config) == ""


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (replace(LAYER, attention=replace(ATTENTION, window=16)), ""),
        (replace(LAYER, attention=replace(ATTENTION, head_norm=NORM)), ""),
        (replace(LAYER, attention=replace(ATTENTION, head_norm=LayerNorm(1e-5))), "layer norms"),
        (replace(LAYER, attention=replace(ATTENTION, score_cap=30.0)), "capped scores"),
        (replace(LAYER, norm=LayerNorm(1e-5)), "layer norms"),
        (replace(LAYER, norm=RmsNorm(1e-5, 1.0)), "norms whose weights are added to a number"),
        (replace(LAYER, arrangement=Arrangement.PARALLEL), "attention and MLP side by side"),
        (replace(LAYER, mlp=GatedMlp(96, Activation.GELU_TANH)), "gelu by tanh"),
        (replace(LAYER, mlp=EXPERTS), "mixtures of experts"),
    ],
)
def test_the_fused_kernels_compute_a_kind_or_say_which_they_do_not(layer: Layer, said: str) -> None:
    found = missing(FUSED.computes, llama(layers=(layer,) * 3))
    assert f"it computes no {said} (layer 0)" in found if said else found == ""


def test_layers_whose_attention_differs_are_refused_by_number() -> None:
    narrow = replace(LAYER, attention=replace(ATTENTION, window=16))
    with pytest.raises(LoadFailed, match="attention of layer 1 is of another kind"):
        _ = llama(layers=(LAYER, narrow)).attention


def test_each_field_of_a_model_that_changes_what_is_computed_is_a_need() -> None:
    changes: dict[str, tuple[Any, Need]] = {
        "has_learned_positions": (True, Need.LEARNED_POSITIONS),
        "embedding_multiplier": (2.0, Need.EMBEDDING_MULTIPLIER),
        "embedding_norm": (NORM, Need.EMBEDDING_NORM),
        "has_head_bias": (True, Need.HEAD_BIAS),
        "logit_multiplier": (0.5, Need.LOGIT_MULTIPLIER),
        "logit_cap": (30.0, Need.LOGIT_CAP),
    }
    assert not llama().needs().keys() & {need for _, need in changes.values()}
    for name, (value, need) in changes.items():
        assert need in llama(**{name: value}).needs(), name


def test_torch_computes_all_that_there_is() -> None:
    assert set(Need) - {Need.FOREIGN} == TORCH.computes


def test_a_role_without_a_name_is_the_declarations_mistake() -> None:
    with pytest.raises(LookupError, match="names no weight for its head"):
        Names(()).of(Role.HEAD)
