"""The compiled step gives what torch gives: one suite over processors with AMX and without."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from native_models import EXACT, NATIVE, error_of
from paged_models import (
    LENGTHS,
    SHAPE,
    Paged,
    Steps,
    chunked,
    mixed,
    one_by_one,
    random_model,
    whole,
)
from torch import Tensor

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.llama import LlamaShape
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.native import library
from trivet.backends.llm.native.kinds import why_not
from trivet.backends.llm.native.library import Native
from trivet.backends.llm.native.packing import pack
from trivet.backends.llm.steps.runner import Model

pytestmark = pytest.mark.skipif(isinstance(NATIVE, str), reason=str(NATIVE))
HEADS_64 = {
    "hidden_size": 192, "intermediate_size": 96, "num_attention_heads": 6, "head_dim": 64,
    "num_key_value_heads": 2, "vocab_size": 120,
}  # fmt: skip
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama, tied, five to a key head": (
        "Llama",
        {"tie_word_embeddings": True, "hidden_size": 320, "num_attention_heads": 5,
         "num_key_value_heads": 1},
    ),
    "llama, biased, no grouping": ("Llama", {"attention_bias": True, "num_key_value_heads": 6}),
    "mistral, window": ("Mistral", {"sliding_window": 16}),
    "qwen2, heads of 128": ("Qwen2", {"head_dim": 128, "num_attention_heads": 3,
                                      "num_key_value_heads": 1}),
    "qwen3": ("Qwen3", {}),
}  # fmt: skip


@cache
def model(name: str) -> tuple[LlmConfig, dict[str, Tensor]]:
    """One of ARCHITECTURES, its weights rounded to bfloat16."""
    family, changes = ARCHITECTURES[name]
    made = random_model(family, HEADS_64 | changes)
    with torch.no_grad():
        weights = {key: weight.bfloat16() for key, weight in made.state_dict().items()}
    return from_hub(made.config.to_dict()), weights


@cache
def prompts() -> list[list[int]]:
    chance = random.Random(3)
    return [[chance.randrange(SHAPE["vocab_size"]) for _ in range(n)] for n in LENGTHS]


@cache
def exact(name: str) -> Tensor:
    """Logits in float32 of the same weights."""
    config, weights = model(name)
    full = {key: weight.float() for key, weight in weights.items()}
    return torch.cat(Paged(config, full, 16, LENGTHS).run(prompts(), whole()))


@pytest.mark.parametrize("block_size", [1, 16, 64])
@pytest.mark.parametrize("steps", [whole, chunked, one_by_one, mixed])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_as_near_to_float32_as_torchs(
    name: str, steps: Callable[[], Steps], block_size: int, make: Callable[..., Model]
) -> None:
    config, weights = model(name)
    found = torch.cat(Paged(config, weights, block_size, LENGTHS, make).run(prompts(), steps()))
    torchs = torch.cat(Paged(config, weights, block_size, LENGTHS).run(prompts(), steps()))
    assert not found.isnan().any()
    assert error_of(found, exact(name)) < max(error_of(torchs, exact(name)), EXACT)


@pytest.mark.parametrize("threads", [2, 3])
def test_logits_do_not_depend_on_the_number_of_threads(
    make: Callable[..., Model], threads: int
) -> None:
    config, weights = model("llama")
    wanted = Paged(config, weights, 16, LENGTHS, make).run(prompts(), mixed())
    torch.set_num_threads(threads)
    found = Paged(config, weights, 16, LENGTHS, make).run(prompts(), mixed())
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_neighbours_do_not_show_in_a_sequence(make: Callable[..., Model]) -> None:
    config, weights = model("llama")
    together = Paged(config, weights, 16, LENGTHS, make).run(prompts(), one_by_one())
    alone = Paged(config, weights, 16, LENGTHS[2:3], make)
    (found,) = alone.run(prompts()[2:3], [[3], [1], [1]])
    assert error_of(found, together[2]) < EXACT


def test_long_sequences_are_seen_whole(make: Callable[..., Model]) -> None:
    made = random_model("Llama", HEADS_64 | {"max_position_embeddings": 1024})
    weights = {key: weight.detach().bfloat16() for key, weight in made.state_dict().items()}
    config = from_hub(made.config.to_dict())
    chance = random.Random(8)
    long = [[chance.randrange(SHAPE["vocab_size"]) for _ in range(700)]]
    steps = [[300], [350], *[[1]] * 50]
    full = {key: weight.float() for key, weight in weights.items()}
    (wanted,) = Paged(config, full, 16, [700]).run(long, [[700]])
    (found,) = Paged(config, weights, 16, [700], make).run(long, steps)
    (torchs,) = Paged(config, weights, 16, [700]).run(long, steps)
    assert error_of(found[300:], wanted[300:]) < max(error_of(torchs[300:], wanted[300:]), EXACT)


def test_packed_weights_hold_each_number_once_in_the_documented_place() -> None:
    weight = torch.arange(64 * 96).view(64, 96)
    packed = pack(weight)
    assert packed.shape == (2, 3, 2, 16, 16, 2)
    assert packed[1, 2, 1, 5, 7, 1] == weight[32 + 16 + 7, 2 * 32 + 2 * 5 + 1]
    assert sorted(packed.flatten().tolist()) == weight.flatten().tolist()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head_dim": 40}, "40"),
        ({"head_dim": 272}, "272"),
        ({"hidden_size": 200}, "multiples of 32"),
        ({"num_heads": 34, "num_kv_heads": 2}, "16 query heads"),
    ],
)
def test_models_it_cannot_compute_are_left_to_torch(changes: dict[str, Any], said: str) -> None:
    shape = LlamaShape(
        architecture="llama", hidden_size=192, num_layers=1, num_heads=6, num_kv_heads=2,
        head_dim=64, intermediate_size=96, vocabulary_size=120, max_positions=256,
        rms_norm_eps=1e-5, rope_theta=1e4,
    )  # fmt: skip
    assert why_not(shape.config(), torch.bfloat16) == ""
    assert said in why_not(replace(shape, **changes).config(), torch.bfloat16)
    assert "float32" in why_not(shape.config(), torch.float32)


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVET_NATIVE", "0")
    assert library.load_native.__wrapped__() == "TRIVET_NATIVE is 0"
    monkeypatch.setenv("TRIVET_NATIVE", "avx512")
    found = library.load_native.__wrapped__()
    assert isinstance(found, Native)
    assert not found.has_amx


def test_a_lesser_processor_and_a_missing_library_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "processor_flags", lambda: frozenset({"avx2"}))
    assert "avx512_bf16" in str(library.load_native.__wrapped__())
    monkeypatch.setattr(library, "LIBRARY", library.LIBRARY.with_name("missing.so"))
    assert "not built" in str(library.load_native.__wrapped__())


def test_a_library_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "STRUCTURE_BYTES", library.STRUCTURE_BYTES + 8)
    assert "other sources" in str(library.load_native.__wrapped__())
