"""Whole models through the kernels give the logits of plain torch, however they are cut up."""

import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from paged_models import LENGTHS, SHAPE, Paged, Steps, mixed, random_model, whole
from torch import Tensor

from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.triton_paged import TritonAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.taking import Weights

HEADS = {"head_dim": 16, "num_hidden_layers": 2}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", HEADS),
    "mistral, window": ("Mistral", HEADS | {"sliding_window": 16}),
    "qwen3, no grouping": ("Qwen3", HEADS | {"num_key_value_heads": 6}),
    "qwen2, a window of some layers": (
        "Qwen2",
        HEADS | {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ),
}


def triton_model(config: LlmConfig, weights: Mapping[str, Stored], cache: KvCache) -> Model:
    attention = TritonAttention(cache, config.attentions)
    return TorchDecoder(Weights(weights, config), attention)


@cache
def expected(name: str) -> tuple[LlmConfig, dict[str, Tensor], list[list[int]], Tensor]:
    """Config, weights, prompts and their logits in float32."""
    made = random_model(*ARCHITECTURES[name])
    config, weights = from_hub(made.config.to_dict()), made.state_dict()
    chance = random.Random(3)
    prompts = [[chance.randrange(SHAPE["vocab_size"]) for _ in range(n)] for n in LENGTHS]
    logits = Paged(config, weights, 16, LENGTHS).run(prompts, whole())
    return config, weights, prompts, torch.cat(logits)


@pytest.mark.parametrize(("steps", "block_size"), [(whole, 64), (mixed, 16)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_equal_those_of_plain_torch(
    device: torch.device, name: str, steps: Callable[[], Steps], block_size: int
) -> None:
    config, weights, prompts, wanted = expected(name)
    there = {key: weight.to(device) for key, weight in weights.items()}
    paged = Paged(config, there, block_size, LENGTHS, triton_model)
    found = torch.cat(paged.run(prompts, steps())).to(wanted.device)
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=0)
