"""The compiled step computes every kind that torch's way does, on processors with AMX and without;
what it does not, it leaves to torch with the reason."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from family_models import BY_NAME
from native_models import EXACT, NATIVE, Make, error_of, family, usual_error_of
from paged_models import mixed, one_by_one

from trivet.backends.llm.families.needs import Need
from trivet.backends.llm.implementations import missing
from trivet.backends.llm.models import torch_decoder
from trivet.backends.llm.native.kinds import COMPUTES, why_not

pytestmark = pytest.mark.skipif(isinstance(NATIVE, str), reason=str(NATIVE))
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in BY_NAME},
    "Gemma2, heads of 256": ("Gemma2", {"head_dim": 256, "sliding_window": 12}),
    "Gemma3, heads of 128": ("Gemma3", {"head_dim": 128, "sliding_window": 12}),
    "Phi, heads of 80": ("Phi", {
        "hidden_size": 160, "num_attention_heads": 2, "num_key_value_heads": 2,
        "partial_rotary_factor": 0.4, "qk_layernorm": True,
    }),
    "Phi3, heads of 96": ("Phi3", {
        "hidden_size": 192, "num_attention_heads": 2, "num_key_value_heads": 2,
        "sliding_window": 12,
    }),
    "Cohere, normed heads": ("Cohere", {"use_qk_norm": True, "num_key_value_heads": 4}),
    "Mpt, clipped": ("Mpt", {
        "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 96,
        "attn_config": {"clip_qkv": 0.5},
    }),
    "OLMo, clipped": ("Olmo", {"clip_qkv": 0.5}),
    "quick gelu": ("Phi", {"hidden_act": "quick_gelu"}),
    "relu": ("Phi", {"hidden_act": "relu"}),
    "groups of experts": ("Glm4Moe", {
        "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
        "head_dim": 16, "num_mtp_layers": 0, "n_group": 4, "topk_group": 2,
        "first_k_dense_replace": 0,
    }),
}  # fmt: skip
LEFT_TO_TORCH = frozenset({
    Need.LATENT, Need.MLP_LIMIT, Need.ROUTER_BIAS, Need.SINKS, Need.UP_OFFSET,
})  # fmt: skip
"""What DeepSeek and gpt-oss need besides."""


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_is_as_near_to_float32_as_torchs(name: str, make: Make, tmp_path: Path) -> None:
    of_family, changes = VARIANTS[name]
    made = family(of_family, changes, tmp_path)
    if missing(COMPUTES, made.config):
        assert made.config.needs().keys() & LEFT_TO_TORCH
        return
    assert why_not(made.config, torch.bfloat16) == ""
    exact = made.exact()
    found = made.run(mixed(), make)
    assert not found.isnan().any()
    error = usual_error_of if Need.EXPERTS in made.config.needs() else error_of
    assert error(found, exact) < max(error(made.run(mixed()), exact), EXACT)


def test_what_it_leaves_to_torch_is_what_is_listed_here() -> None:
    assert torch_decoder.COMPUTES - COMPUTES == LEFT_TO_TORCH


@pytest.mark.parametrize("name", ["Mixtral", "groups of experts"])
def test_a_token_of_nan_does_no_harm_to_those_beside_it(
    name: str, make: Make, tmp_path: Path
) -> None:
    """Its experts are distinct as any token's are: tiles have rows for each token once."""
    of_family, changes = VARIANTS[name]
    made = family(of_family, changes, tmp_path)
    nan_id = made.config.vocabulary_size - 1
    healthy = [[token % nan_id for token in prompt] for prompt in made.prompts]
    table = next(key for key in made.weights if "embed_tokens" in key)
    made.weights[table][nan_id] = torch.nan
    found, wanted = (
        replace(made, prompts=[first, *healthy[1:]]).run(one_by_one(), make)
        for first in ([nan_id] * len(healthy[0]), healthy[0])
    )

    assert found[: len(healthy[0])].isnan().all()
    assert torch.equal(found[len(healthy[0]) :], wanted[len(healthy[0]) :])
