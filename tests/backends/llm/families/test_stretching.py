"""Beyond the length up to which rotary positions do not change, one way of long sequences holds."""

from pathlib import Path

import pytest
import torch
from family_models import BY_NAME, DYNAMIC, LINEAR, LONG, MAX_POSITIONS, Made, logits, saved
from paged_models import Paged
from real_engine import DrivenEngine
from torch import Tensor

from trivet.backends.api import Sampling
from trivet.backends.llm.engine import assemble
from trivet.backends.llm.families.stretching import for_length
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.weights.files import load_model

NUM_NEW = 6
GREEDY = Sampling(max_tokens=NUM_NEW, temperature=0.0, ignore_eos=True)
LONGER = [[(5 + 7 * place + shift) % 96 for place in range(70 + shift)] for shift in range(3)]
"""Than LONG's original length."""


def opened(folder: Path, max_model_len: int) -> DrivenEngine:
    driven = DrivenEngine()
    settings = EngineSettings(
        str(folder), dtype="float32", num_threads=1, block_size=4, max_batched_tokens=16,
        kv_cache_bytes=1 << 21, max_num_seqs=8, max_model_len=max_model_len,
    )  # fmt: skip
    driven.engine, driven_info = assemble.make_engine(settings, driven.send)
    assert driven_info["max_model_len"] <= max_model_len
    return driven


def test_longer_prompts_are_turned_by_long_divisors_as_in_transformers(tmp_path: Path) -> None:
    made = BY_NAME["Llama"]
    values = made.values({"rope_parameters": LONG})
    model = made.model(values)
    saved(model, values, tmp_path)
    wanted = [_generated(model, prompt) for prompt in LONGER]
    driven = opened(tmp_path, MAX_POSITIONS)
    for _ in range(2):  # the second time from the prefix cache
        assert driven.tokens(LONGER, GREEDY) == wanted
    assert driven.results["0"].num_cached > 0


@pytest.mark.parametrize("name", ["Llama", "Mistral"])
def test_dynamic_frequencies_are_those_of_the_full_length(name: str, tmp_path: Path) -> None:
    made: Made = BY_NAME[name]
    values = made.values({"rope_parameters": DYNAMIC, "sliding_window": None})
    model = made.model(values)
    config, weights, _ = load_model(saved(model, values, tmp_path), torch.float32)
    full = 3 * MAX_POSITIONS
    prompt = [(3 + 5 * place) % 96 for place in range(full)]
    found = Paged(for_length(config, full), weights, 16, (full,)).run([prompt], [[full]])
    torch.testing.assert_close(torch.cat(found), _whole(model, prompt), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("changes", "asked", "served"),
    [
        ({"rope_parameters": LONG}, 0, 64),
        ({"rope_parameters": LONG}, 40, 64),
        ({"rope_parameters": LONG}, 80, 80),
        ({"rope_parameters": LONG}, 500, MAX_POSITIONS),
        ({"rope_parameters": DYNAMIC}, 500, 3 * MAX_POSITIONS),
        ({"rope_parameters": DYNAMIC}, MAX_POSITIONS, MAX_POSITIONS),
        ({"rope_parameters": DYNAMIC | {"factor": 0.5}}, 500, MAX_POSITIONS),
        ({"rope_parameters": LINEAR}, 500, MAX_POSITIONS),
    ],
)
def test_only_who_asks_for_more_gets_the_way_of_long_sequences(
    changes: dict[str, object], asked: int, served: int, tmp_path: Path
) -> None:
    made = BY_NAME["Llama"]
    values = made.values(changes)
    config, _, _ = load_model(saved(made.model(values), values, tmp_path), torch.float32)
    found = for_length(config, asked)
    assert found.max_positions == served
    assert (found == config) == (served == config.max_positions)


@torch.inference_mode()
def _generated(model: object, prompt: list[int]) -> list[int]:
    given = torch.tensor([prompt])
    output: Tensor = model.generate(  # type: ignore[attr-defined]  # transformers' own
        given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=NUM_NEW,
        min_new_tokens=NUM_NEW, eos_token_id=99, pad_token_id=0,
    )  # fmt: skip
    found: list[int] = output[0, len(prompt) :].tolist()
    return found


def _whole(model: object, prompt: list[int]) -> Tensor:
    return logits(model, [prompt])[0]
