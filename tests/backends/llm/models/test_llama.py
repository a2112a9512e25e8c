"""The Llama shape over the paged cache gives the logits of `transformers`, however it is cut up."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from paged_models import (
    LENGTHS,
    SHAPE,
    Paged,
    Steps,
    chunked,
    mixed,
    one_by_one,
    random_model,
    reference,
    whole,
)
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.taking import Weights

SMOLLM2 = Path(__file__).parents[4] / "model_repository" / "smollm2" / "1" / "model.gguf"
TOLERANCE = 1e-4
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama, tied, one key head": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "llama, no grouping": ("Llama", {"num_key_value_heads": 6}),
    "llama, biased": ("Llama", {"attention_bias": True}),
    "llama, llama3 rope": ("Llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama, linear rope": ("Llama", {"rope_parameters": LINEAR_ROPE}),
    "mistral, window": ("Mistral", {"sliding_window": 16, "head_dim": 8}),
    "mistral, no window": ("Mistral", {"sliding_window": None, "head_dim": 8}),
    "qwen2": ("Qwen2", {}),
    "qwen2, window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0},
    ),
    "qwen2, window unused": ("Qwen2", {"use_sliding_window": False, "sliding_window": 16}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "qwen3, biased": ("Qwen3", {"head_dim": 32, "attention_bias": True}),
}


@dataclass(frozen=True, slots=True)
class Expected:
    """What `transformers` gives."""

    config: LlmConfig
    weights: dict[str, Tensor]
    prompts: list[list[int]]
    logits: list[Tensor]
    """[tokens, vocabulary] of each prompt."""


@cache
def expected(name: str) -> Expected:
    """Of one of ARCHITECTURES."""
    model = random_model(*ARCHITECTURES[name])
    chance = random.Random(3)
    prompts = [[chance.randrange(SHAPE["vocab_size"]) for _ in range(n)] for n in LENGTHS]
    config = from_hub(model.config.to_dict())
    return Expected(config, model.state_dict(), prompts, reference(model, prompts))


def assert_equal(found: list[Tensor], wanted: list[Tensor]) -> None:
    """Logits are equal, and large enough for that to mean something."""
    for ours, theirs in zip(found, wanted, strict=True):
        assert theirs.std() > 0.3
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Handing such small products to a second thread costs more than computing them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("block_size", [1, 16, 64])
@pytest.mark.parametrize("steps", [whole, chunked, one_by_one, mixed])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_equal_transformers(name: str, steps: Callable[[], Steps], block_size: int) -> None:
    wanted = expected(name)
    paged = Paged(wanted.config, wanted.weights, block_size, LENGTHS)
    assert_equal(paged.run(wanted.prompts, steps()), wanted.logits)


def test_logits_are_given_for_the_wanted_rows_only() -> None:
    wanted = expected("llama")
    paged = Paged(wanted.config, wanted.weights, 16, LENGTHS[:1])
    inputs = paged._inputs(wanted.prompts, [0], [0], LENGTHS[:1])
    last = StepInputs(
        inputs.token_ids, inputs.positions, inputs.slot_mapping, inputs.query_starts,
        inputs.sequence_lengths, inputs.block_tables, sample_rows=torch.tensor([36, 4]),
    )  # fmt: skip
    with torch.inference_mode():
        logits = paged.model.forward(last)
    assert logits.dtype == torch.float32
    assert_equal([logits], [wanted.logits[0][[36, 4]]])


def test_neighbours_in_a_step_do_not_show_in_a_sequence() -> None:
    wanted = expected("qwen3")
    prompt = wanted.prompts[1]
    alone = Paged(wanted.config, wanted.weights, 16, [len(prompt)])
    assert_equal(alone.run([prompt], [[33], [37]]), [wanted.logits[1]])


def test_short_sequence_decodes_next_to_one_many_times_as_long() -> None:
    # Kernels that go through keys in pieces meet pieces here of which a row sees nothing.
    config, weights = long_model()
    chance = random.Random(4)
    long, short = ([chance.randrange(SHAPE["vocab_size"]) for _ in range(n)] for n in (1500, 3))
    together = Paged(config, weights, 16, [1500, 3])
    found = together.run([long, short], [[1498, 1], [1, 1], [1, 1]])
    alone = Paged(config, weights, 16, [3]).run([short], [[1], [1], [1]])
    assert_equal([found[1]], alone)
    assert not found[0].isnan().any()


def long_model() -> tuple[LlmConfig, dict[str, Tensor]]:
    """One that takes 2048 tokens."""
    model = random_model("Mistral", {"max_position_embeddings": 2048, "sliding_window": 600})
    return from_hub(model.config.to_dict()), model.state_dict()


def test_window_hides_what_lies_before_it() -> None:
    # Otherwise the comparisons with a window could pass without one.
    narrow, full = expected("mistral, window"), expected("mistral, no window")
    assert torch.allclose(narrow.logits[0][:16], full.logits[0][:16], atol=TOLERANCE)
    assert not torch.allclose(narrow.logits[0][16:], full.logits[0][16:], atol=0.01)


def test_bfloat16_stays_near_float32() -> None:
    wanted = expected("llama")
    weights = {name: weight.bfloat16() for name, weight in wanted.weights.items()}
    paged = Paged(wanted.config, weights, 16, LENGTHS)
    found = torch.cat(paged.run(wanted.prompts, mixed()))
    error = (found - torch.cat(wanted.logits)).square().mean().sqrt()
    assert error < 0.03 * torch.cat(wanted.logits).std()


def build(config: LlmConfig, weights: Mapping[str, Stored]) -> TorchDecoder:
    """A model that is only built."""
    attention = TorchAttention(KvCache(config, 2, 16, torch.float32), config.attentions)
    return TorchDecoder(Weights(weights, config), attention)


def test_missing_weight_is_named() -> None:
    wanted = expected("llama")
    weights = {k: v for k, v in wanted.weights.items() if k != "model.layers.2.mlp.up_proj.weight"}
    with pytest.raises(LoadFailed, match=r"no weight 'model\.layers\.2\.mlp\.up_proj\.weight'"):
        build(wanted.config, weights)


def test_weight_of_another_shape_is_named_with_both_shapes() -> None:
    wanted = expected("llama")
    weights = wanted.weights | {"model.norm.weight": torch.ones(47)}
    with pytest.raises(LoadFailed, match=r"'model\.norm\.weight'.*\[47\].*\[48\]"):
        build(wanted.config, weights)


def test_weight_that_nothing_uses_is_refused() -> None:
    wanted = expected("llama")
    weights = wanted.weights | {"model.layers.0.mlp.down_proj.bias": torch.ones(48)}
    with pytest.raises(LoadFailed, match=r"'model\.layers\.0\.mlp\.down_proj\.bias'"):
        build(wanted.config, weights)


def test_needless_weights_of_old_checkpoints_do_no_harm() -> None:
    wanted = expected("llama, tied, one key head")
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    assert build(wanted.config, wanted.weights | old)


@pytest.mark.slow  # its tokens are compared in test_acceptance.py
@pytest.mark.skipif(not SMOLLM2.exists(), reason="run model_repository/build.py")
def test_smollm2_equals_transformers() -> None:
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        SMOLLM2.parent, gguf_file=SMOLLM2.name, dtype=torch.float32
    )
    config, weights, _ = load_model(SMOLLM2, torch.float32)
    chance = random.Random(11)
    prompts = [[chance.randrange(49152) for _ in range(n)] for n in (40, 7)]
    paged = Paged(config, weights, 16, [40, 7])
    steps = [[16, 3], [1, 4], [20, 0], [1, 0], [1, 0], [1, 0]]
    assert_equal(paged.run(prompts, steps), reference(model, prompts))
