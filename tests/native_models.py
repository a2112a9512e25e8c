"""Models for the compiled step: whole families, in bfloat16, of sizes that it computes."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from family_models import BY_NAME, Made, saved
from paged_models import LENGTHS, Paged, Steps, torch_model, whole
from torch import Tensor

from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.native.decoder import NativeModel
from trivet.backends.llm.native.library import Native, load_native
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.taking import Weights

NATIVE = load_native()
EXACT = 2**-8
"""One rounding to bfloat16."""
Make = Callable[[LlmConfig, Mapping[str, Stored], KvCache], Model]
SIZES: dict[str, Any] = {
    "hidden_size": 64, "n_embd": 64, "d_model": 64, "intermediate_size": 96, "ffn_dim": 96,
    "head_dim": 16, "rotary_dim": 8, "word_embed_proj_dim": 64, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 64,
}  # fmt: skip
"""Instead of those of `family_models`, where a family has them."""


@dataclass(frozen=True)
class Weighed:
    """A model, and prompts for it."""

    config: LlmConfig
    weights: dict[str, Tensor]
    prompts: list[list[int]]

    def run(self, steps: Steps, make: Make = torch_model) -> Tensor:
        """Logits of all tokens."""
        paged = Paged(self.config, self.weights, 16, LENGTHS, make)
        return torch.cat(paged.run(self.prompts, steps))

    def exact(self) -> Tensor:
        """Those of the same weights in float32."""
        full = {name: weight.float() for name, weight in self.weights.items()}
        return replace(self, weights=full).run(whole())


def family(name: str, changes: dict[str, Any], folder: Path) -> Weighed:
    """A model of `family_models` with sizes that the step computes, or others."""
    made: Made = BY_NAME[name]
    sizes = {key: SIZES.get(key, value) for key, value in made.given.items()}
    values = replace(made, sizes=sizes, changes=changes).values()
    config, weights, _ = load_model(saved(made.model(values), values, folder), torch.bfloat16)
    chance = random.Random(3)
    prompts = [[chance.randrange(config.vocabulary_size) for _ in range(n)] for n in LENGTHS]
    plain = {name: each for name, each in weights.items() if isinstance(each, Tensor)}
    return Weighed(config, plain, prompts)


def native_model(
    config: LlmConfig, weights: Mapping[str, Stored], cache: KvCache, *, amx: bool
) -> Model:
    """On a processor with AMX or without."""
    assert isinstance(NATIVE, Native)
    return NativeModel(Weights(weights, config), cache, replace(NATIVE, has_amx=amx))


def error_of(found: Tensor, wanted: Tensor) -> float:
    """Relative to how much logits differ."""
    return float((found - wanted).square().mean().sqrt() / wanted.std())


def usual_error_of(found: Tensor, wanted: Tensor) -> float:
    """That of the median token: a few go to other experts where two are liked almost alike."""
    errors = (found - wanted).square().mean(dim=1).sqrt() / wanted.std()
    return float(errors.median())
