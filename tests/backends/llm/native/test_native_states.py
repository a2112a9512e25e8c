"""Keys and values in 8 bits: the compiled step keeps and reads what torch does."""

from collections.abc import Callable, Mapping

import pytest
import torch
from native_models import EXACT, NATIVE, Make, error_of
from paged_models import LENGTHS, Paged, Steps, chunked, one_by_one, random_model, whole
from torch import Tensor

from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.matrices.fp8 import FP8, FP8_MAX
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.steps.runner import Model

pytestmark = pytest.mark.skipif(isinstance(NATIVE, str), reason=str(NATIVE))
SIZES = {64: {"hidden_size": 192, "intermediate_size": 96, "head_dim": 64}, 48: {
    "hidden_size": 96, "intermediate_size": 96, "num_attention_heads": 2, "head_dim": 48,
    "num_key_value_heads": 2,
}}  # fmt: skip
"""By the size of a head: one of them is no multiple of 32."""
IN_8_BITS = 0.4
"""What rounding keys and values to four binary digits may change of random models, relative to how
much logits differ."""
PROMPTS = [[(7 * place + 3 * size) % 120 for place in range(size)] for size in LENGTHS]


def model(head_dim: int) -> tuple[LlmConfig, dict[str, Tensor]]:
    made = random_model("Llama", SIZES[head_dim])
    weights = {name: weight.detach().bfloat16() for name, weight in made.state_dict().items()}
    return from_hub(made.config.to_dict()), weights


@pytest.mark.parametrize("steps", [whole, chunked, one_by_one])
@pytest.mark.parametrize("head_dim", SIZES)
def test_a_cache_of_8_bits_gives_what_torch_gives_with_one(
    head_dim: int, steps: Callable[[], Steps], make: Make
) -> None:
    config, weights = model(head_dim)
    scales = [(0.5 + layer, 0.03) for layer in range(config.num_layers)]
    exact = torch.cat(Paged(config, weights, 16, LENGTHS).run(PROMPTS, steps()))
    plain = Paged(config, weights, 16, LENGTHS, kept=FP8, scales=scales)
    wanted = torch.cat(plain.run(PROMPTS, steps()))
    packed = Paged(config, weights, 16, LENGTHS, make, kept=FP8, scales=scales)
    found = torch.cat(packed.run(PROMPTS, steps()))
    assert EXACT < error_of(wanted, exact) < IN_8_BITS
    assert error_of(found, exact) < error_of(wanted, exact) * 1.2
    assert error_of(found, wanted) < error_of(wanted, exact)


@pytest.mark.parametrize("scale", [1.0, 2**-10, 2**6])
def test_each_number_becomes_the_nearest_of_8_bits(scale: float, make: Make) -> None:
    """Those that are cut and those below the smallest exponent, too."""
    config, weights = model(64)
    caches: list[KvCache] = []

    def noted(config: LlmConfig, weights: Mapping[str, Stored], cache: KvCache) -> Model:
        caches.append(cache)
        return make(config, weights, cache)

    for kept in (FP8, None):
        scales = [(scale, scale)] * config.num_layers
        Paged(config, weights, 16, LENGTHS, noted, kept, scales).run(PROMPTS, whole())
    # Of the first layer, which reads nothing that was kept.
    found, exact = (cache.layers[0][:, 1:].float() for cache in caches)
    there = ~exact.isnan()
    wanted = (exact[there] / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8)
    assert torch.equal(found[there], wanted.float())
