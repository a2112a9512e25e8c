"""Rotary positions are those of transformers, however a config spells them; what is not computed is
refused."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.gguf_rope import gguf_rope
from trivet.backends.llm.families.kinds import GroupedAttention, Rope, RopeScaling
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.models.rotary import rotary_table

HEAD_SIZE = 16
NUM_POSITIONS = 300
SHAPE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 32, "hidden_size": 32,
    "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
}  # fmt: skip
FACTORS = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "linear by 1": {"factor": 1.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0},
    "longrope": {"factor": 4.0, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8},
    "llama3": {**FACTORS, "original_max_position_embeddings": 64},
    "llama3 without its length": FACTORS,
}
PLACES = ("rope_parameters", "rope_scaling", "both")
THETAS = ("nowhere", "inside", "outside", "both")
ORIGINALS = (None, 32)
ALWAYS_COMPUTED = set(KINDS)


def configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every kind in every spelling."""
    for kind, place, key, theta, original in itertools.product(
        KINDS, PLACES, ("rope_type", "type", "both", ""), THETAS, ORIGINALS
    ):
        yield (
            f"{kind}, {place}, {key}, {theta}, {original}",
            spelt(kind, place, key, theta, original),
        )


def spelt(kind: str, place: str, key: str, theta: str, original: int | None) -> dict[str, Any]:
    """One config.json's keys."""
    name = kind.split(" ", maxsplit=1)[0]
    keys = {"both": ("rope_type", "type"), "": ()}.get(key, (key,))
    given = {**dict.fromkeys(keys, name), **KINDS[kind]}
    config: dict[str, Any] = dict(SHAPE)
    if theta in ("inside", "both"):
        given["rope_theta"] = 500.0
    if theta in ("outside", "both"):
        config["rope_theta"] = 700.0
    if original is not None:
        config["original_max_position_embeddings"] = original
    config["rope_scaling" if place == "both" else place] = given
    if place == "both":
        config["rope_parameters"] = {"rope_type": "default"}
    return config


@pytest.mark.parametrize("each", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_positions_are_those_of_transformers_or_refused_by_name(each: int) -> None:
    num_computed = 0
    for name, config in itertools.islice(configs(), 0, None, each):
        try:
            model = from_hub(config)
        except LoadFailed as error:
            told = str(error)
            assert "rope" in told, name
            kind = name.split(",")[0]
            has_kind = ", , " not in name
            assert kind not in ALWAYS_COMPUTED or not has_kind, f"{name}: {told}"
            continue
        num_computed += 1
        # Some kinds turn positions otherwise where there are more than are served.
        count = min(NUM_POSITIONS, model.max_positions)
        found = rotary_table(model.attention, count, torch.float32)
        for mine, wanted in zip(found, of_transformers(config, count), strict=True):
            torch.testing.assert_close(mine, wanted, atol=1e-4, rtol=0, msg=name)
    assert num_computed > 400 // each


def of_transformers(config: dict[str, Any], count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, [positions, head size]."""
    # It writes into what it is given.
    embedding = LlamaRotaryEmbedding(LlamaConfig(**copy.deepcopy(config)))
    cosines, sines = embedding(torch.zeros(1), torch.arange(count)[None])
    return cosines[0], sines[0]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"rope_scaling": {"rope_type": "axial", "factor": 4.0}}, "rope scaling 'axial'"),
        ({"rope_parameters": {"type": "default"}, "rope_scaling": {"type": "axial"}}, "'axial'"),
        ({"rope_scaling": {"type": "yarn"}}, "of type 'yarn' without 'factor'"),
        ({"rope_scaling": {"type": "dynamic"}}, "of type 'dynamic' without 'factor'"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": 1}}, "truncate 1"),
        (
            {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0] * 8}},
            "rope_scaling.short_factor [1.0]; it must be a list of 8",
        ),
        ({"rope_scaling": {"factor": 4.0}}, "rope_scaling.factor 4.0"),
        (
            {"rope_scaling": {"rope_type": "default", "type": "linear", "factor": 2.0}},
            ".factor 2.0",
        ),
        ({"rope_scaling": {"type": "linear"}}, "without 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": "4"}}, "a number above 0"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "a number above 0"),
        ({"rope_scaling": [4.0]}, "it must be an object"),
        ({"rope_parameters": {"mrope_section": [2, 3, 3]}}, "rope_parameters.mrope_section"),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear"}}}, "full_attention"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5"),
        (
            {
                "rope_parameters": {"rope_theta": 500.0},
                "rope_scaling": {"type": "linear", "factor": 2.0},
            },
            "move rope_theta",
        ),
    ],
)
def test_key_that_would_change_the_result_is_refused(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        from_hub(SHAPE | config)
    assert reason.lower() in str(caught.value).lower()


LINEAR = RopeScaling("linear", 4.0)


@pytest.mark.parametrize(
    ("keys", "scaling"),
    [
        ({}, None),
        ({"scaling.type": "linear", "scaling.factor": 4.0}, LINEAR),
        ({"scaling.factor": 4.0}, LINEAR),
        ({"scale_linear": 4.0}, LINEAR),
        ({"scaling.type": "linear", "scale_linear": 4.0}, LINEAR),
        ({"scaling.factor": 4.0, "scale_linear": 8.0}, LINEAR),
        ({"scaling.type": "none", "scaling.factor": 4.0}, None),
        ({"scaling.factor": 0.0}, None),
        ({"scaling.factor": 1.0, "scaling.original_context_length": 64}, None),
        ({"scaling.attn_factor": 1.0, "scaling.finetuned": True}, None),
        (
            {"scaling.type": "yarn", "scaling.factor": 4.0, "scaling.original_context_length": 64},
            RopeScaling("yarn", 4.0, original_positions=64, attention_factor=1.1386294361119891),
        ),
    ],
)
def test_gguf_spellings_are_read_as_llama_cpp_does(
    keys: dict[str, Any], scaling: RopeScaling | None
) -> None:
    assert gguf_rope(described(keys), "llama", HEAD_SIZE) == Rope(500.0, scaling)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"scaling.type": "longrope", "scaling.factor": 4.0}, "rope scaling 'longrope'"),
        ({"scaling.type": "yarn", "scaling.factor": 4.0}, "has no 'llama.rope.scaling.original_"),
        ({"scaling.type": "linear"}, "has no 'llama.rope.scaling.factor'"),
        ({"scaling.attn_factor": 1.2}, "llama.rope.scaling.attn_factor 1.2"),
        ({"scaling.yarn_log_multiplier": 0.1}, "llama.rope.scaling.yarn_log_multiplier"),
        ({"freq_base_swa": 10_000.0}, "llama.rope.freq_base_swa"),
        ({"scaling.factor": -1.0}, "a number above 0"),
        ({"dimension_count": 8}, "a part of each head"),
    ],
)
def test_gguf_keys_that_are_not_used_are_refused(keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        gguf_rope(described(keys), "llama", HEAD_SIZE)
    assert reason in str(caught.value)


def described(keys: dict[str, Any]) -> Described:
    values = {f"llama.rope.{name}": value for name, value in keys.items()}
    return Described({"llama.rope.freq_base": 500.0, **values}, "a file")


def test_linear_scaling_is_seen_in_the_table() -> None:
    # Otherwise the comparisons above could pass without one.
    kinds = [GroupedAttention(1, 1, HEAD_SIZE, Rope(500.0, each)) for each in (None, LINEAR)]
    plain, scaled = (rotary_table(kind, NUM_POSITIONS, torch.float32)[0] for kind in kinds)
    assert not torch.allclose(plain, scaled, atol=0.1)
