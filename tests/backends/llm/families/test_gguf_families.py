"""GGUF files of each family give what `transformers` gives of the weights in them."""

import random
from pathlib import Path

import pytest
import torch
from family_gguf import FORMS, USUAL, values_for_gguf, write_family
from family_models import BY_NAME, logits, saved
from paged_models import Paged
from safetensors.torch import load_file

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.registry import from_gguf, from_hub
from trivet.backends.llm.weights.files import load_model

LENGTHS = (37, 5)
ALWAYS = {"Gemma3", "Granite", "Falcon", "GPT2", "Qwen2Moe"}
"""Of each way in which converters change weights."""
some_families = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.slow]) for name in FORMS],
)
PROMPTS = [[random.Random(n).randrange(96) for _ in range(n)] for n in LENGTHS]


@some_families
def test_logits_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    made, form = BY_NAME[name], FORMS[name]
    values = values_for_gguf(made, form)
    model = made.model(values)
    state = load_file(saved(model, values, tmp_path) / "model.safetensors")
    path = tmp_path / "model.gguf"
    write_family(path, form, values, state)
    config, weights, _ = load_model(path, torch.float32)
    theirs = torch.cat(logits(model, PROMPTS))
    assert theirs.std() > 0.05
    found = torch.cat(Paged(config, weights, 16, LENGTHS).run(PROMPTS, [LENGTHS]))
    torch.testing.assert_close(found, theirs, atol=1e-4, rtol=0)


def test_scores_grow_by_what_yarn_says_of_them() -> None:
    made = BY_NAME["DeepseekV3"]
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24,
            "mscale": 0.7, "mscale_all_dim": 0.7}  # fmt: skip
    values = made.values({"rope_parameters": {**rope, "rope_theta": 500.0}})
    prefix = "deepseek2."
    metadata = {
        "general.architecture": "deepseek2", "tokenizer.ggml.tokens": ["a"],
        f"{prefix}rope.scaling.type": "yarn", f"{prefix}rope.scaling.factor": 4.0,
        f"{prefix}rope.scaling.original_context_length": 24, f"{prefix}rope.freq_base": 500.0,
        f"{prefix}rope.scaling.yarn_log_multiplier": 0.07, f"{prefix}rope.dimension_count": 8,
        **{prefix + key: values[name] for name, key in {
            **USUAL, **FORMS["DeepseekV3"].keys}.items() if name in values},
        **{prefix + key: value for key, value in FORMS["DeepseekV3"].constants.items()},
    }  # fmt: skip
    found = from_gguf(Described(metadata, "a file"), set()).attention
    wanted = from_hub(values).attention
    assert found.scale == pytest.approx(wanted.scale)
    assert found.rope is not None
    assert found.rope.scaling is not None
    assert found.rope.scaling.attention_factor == pytest.approx(1.0)
    assert found.latent == wanted.latent


@pytest.mark.parametrize(
    ("architecture", "key", "value", "reason"),
    [
        ("gemma2", "attention.key_length_mla", 8, "key_length_mla 8, which is not known"),
        ("qwen2", "attention.scale", 0.5, "qwen2.attention.scale 0.5, which is not known"),
        ("llama", "logit_scale", 0.5, "llama.logit_scale 0.5, which is not known"),
        ("gemma2", "block_count", None, "the GGUF file has no 'gemma2.block_count'"),
        ("granite", "attention.value_length", 4, "granite.attention.value_length 4, other than"),
        ("olmo2", "rope.scaling.type", "longrope", "'longrope' is not supported in GGUF files"),
        ("mamba", "block_count", 2, "architecture is 'mamba'; supported are"),
        ("mamba", "block_count", 2, "of others, serve the model's Hugging Face folder"),
        ("olmo2", "rope.scaling.yarn_log_multiplier", 0.1, "yarn_log_multiplier 0.1, which"),
    ],
)  # fmt: skip
def test_what_is_not_computed_is_refused_by_name(
    architecture: str, key: str, value: object, reason: str
) -> None:
    metadata = {
        "general.architecture": architecture,
        "tokenizer.ggml.tokens": ["a"],
        f"{architecture}.attention.key_length": 8,
        f"{architecture}.embedding_length": 32,
        f"{architecture}.attention.head_count": 4,
        f"{architecture}.block_count": 2,
        f"{architecture}.{key}": value,
    }
    metadata = {name: each for name, each in metadata.items() if each is not None}
    with pytest.raises(LoadFailed) as caught:
        from_gguf(Described(metadata, "a file"), set())
    assert reason in str(caught.value)
