"""The compiled step adds a step's adapters as torch's way does, with AMX and without."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from native_models import EXACT, NATIVE, Weighed, error_of, family
from paged_models import Paged, Steps
from torch import Tensor

from trivet.backends.llm.adapters.adapter import Adapter, AdapterFiles, LowRank, TokenTable
from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.native.decoder import NativeModel
from trivet.backends.llm.native.library import Native
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.taking import Weights

pytestmark = pytest.mark.skipif(isinstance(NATIVE, str), reason=str(NATIVE))
SLOTS = (2, 0, 3, 1)
"""Of the sequences; one is the base's. The third adapter brings tables of its own."""
STEPS: Steps = [(17, 30, 1, 40), (20, 1, 1, 1), (0, 38, 1, 1), (0, 1, 1, 22), (0, 0, 1, 0)]
OverBank = Callable[[Weights, KvCache], Model]


@pytest.fixture(params=["amx", "avx512"])
def native(request: pytest.FixtureRequest) -> OverBank:
    assert isinstance(NATIVE, Native)
    if request.param == "amx" and not NATIVE.has_amx:
        pytest.skip("this processor has no AMX")
    found = Native(NATIVE.functions, request.param == "amx")
    return lambda weights, cache: NativeModel(weights, cache, found)


def in_torch(weights: Weights, cache: KvCache) -> Model:
    return TorchDecoder(weights, TorchAttention(cache, weights.config.attentions))


class Stepped:
    """A Model that knows whose rows a step has: their first blocks tell."""

    def __init__(self, model: Model, bank: AdapterBank) -> None:
        self._model, self._bank = model, bank
        self._firsts: list[int] = []

    def forward(self, inputs: StepInputs) -> Tensor:
        firsts = inputs.block_tables[:, 0].tolist()
        self._firsts = self._firsts or firsts
        slots = np.array([SLOTS[self._firsts.index(first)] for first in firsts])
        rows = inputs.sample_rows.tolist()
        self._bank.begin(slots, inputs.query_starts.numpy(), rows)
        return self._bank.bar(self._model.forward(inputs))


def adapter(bank: AdapterBank, rank: int, *, has_tables: bool) -> Adapter:
    """Over some of a model's matrices, with numbers of its own."""
    chance = torch.Generator().manual_seed(rank)

    def random(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=chance) * 0.15).bfloat16().to(bank.dtype)

    matrices = {
        (place.index, number): LowRank(
            random(rank, place.inputs), random(part.stop - part.start, rank)
        )
        for place in bank.places.all
        for number, part in enumerate(place.parts)
        if (place.index + number) % rank
    }
    size, hidden = bank.places.vocabulary_size, bank.places.hidden_size
    table = TokenTable(random(size, hidden)) if has_tables else None
    return Adapter(matrices, table, table, size, rank, AdapterFiles({}, b""))


def over(make: OverBank, config: LlmConfig, weights: dict[str, Tensor], cache: KvCache) -> Model:
    dtype = next(iter(weights.values())).dtype
    bank = AdapterBank(dtype, torch.device("cpu"), 64)
    model = make(Weights(weights, config, adapters=bank), cache)
    for slot, rank in ((1, 2), (2, 5), (3, 40)):
        bank.put(slot, adapter(bank, rank, has_tables=slot == 3))
    return Stepped(model, bank)


def run(made: Weighed, make: OverBank, dtype: torch.dtype) -> Tensor:
    weights = {name: weight.to(dtype) for name, weight in made.weights.items()}
    lengths = [len(prompt) for prompt in made.prompts]
    paged = Paged(made.config, weights, 16, lengths, partial(over, make))
    return torch.cat(paged.run(made.prompts, STEPS))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("Llama", {}),
        ("Gemma2", {}),
        ("Phi", {}),
        ("GPTNeoX", {}),
        ("Olmoe", {}),
        ("Qwen2Moe", {}),
        ("Glm4Moe", {}),
        ("Granite", {}),
    ],
)
def test_adapters_are_as_near_to_float32_as_torchs(
    name: str, changes: dict[str, Any], native: OverBank, tmp_path: Path
) -> None:
    made = family(name, changes, tmp_path)
    exact = run(made, in_torch, torch.float32)
    found = run(made, native, torch.bfloat16)
    assert not found.isnan().any()
    limit = max(error_of(run(made, in_torch, torch.bfloat16), exact), EXACT)
    assert error_of(found, exact) < 1.2 * limit
    base = made.exact()
    assert error_of(base[: len(exact)], exact) > 5 * limit  # they change much
