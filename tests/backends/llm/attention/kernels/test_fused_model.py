"""The model of fused kernels gives what the plain one gives: cut up anyhow, replayed, in 8 bits."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from paged_models import SHAPE, Paged, Steps, random_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from triton import knobs
from triton.runtime import KernelInterface

from trivet.backends.llm.attention import paged_kernels
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.attention.triton_paged import TritonAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.matrices.fp8 import FP8
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.models import step_kernels
from trivet.backends.llm.models.fused_llama import FusedLlama
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.steps.graphs import GraphedModel
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.taking import Weights

HEADS = {"head_dim": 16, "num_hidden_layers": 2}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, biased": ("Llama", HEADS | {"attention_bias": True}),
    "qwen3": ("Qwen3", HEADS | {"tie_word_embeddings": True, "num_hidden_layers": 1}),
    "mistral, window": ("Mistral", HEADS | {"sliding_window": 16, "num_hidden_layers": 1}),
}
LENGTHS = (20, 35, 5)
STEPS = ((17, 0, 3), (1, 33, 1), (1, 1, 1), (1, 0, 0), (0, 1, 0))
EIGHT_BIT = HEADS | {"hidden_size": 96, "intermediate_size": 96}


def fused(
    config: LlmConfig, weights: Mapping[str, Stored], cache: KvCache, quantization: str = ""
) -> Model:
    attention = TritonAttention(cache, config.attentions)
    return FusedLlama(Weights(weights, config, quantization=quantization), attention)


class Again:
    """A Recorder: computes again over the same memory."""

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        compute()
        return compute


def replayed(config: LlmConfig, weights: Mapping[str, Stored], cache: KvCache) -> Model:
    """Steps of up to 3 rows are filled up to 4."""
    made = GraphedModel(
        fused(config, weights, cache), Again(), weights["model.norm.weight"].device,
        max_num_seqs=4, max_num_blocks=16,
    )  # fmt: skip
    while made.record_next():
        pass
    return made


@cache
def expected(name: str) -> tuple[LlmConfig, dict[str, Tensor], list[list[int]], Tensor]:
    """Config, weights, prompts and their logits in float32."""
    family, changes = ARCHITECTURES.get(name) or ("Llama", EIGHT_BIT)
    made = random_model(family, changes)
    config, weights = from_hub(made.config.to_dict()), made.state_dict()
    chance = random.Random(3)
    prompts = [[chance.randrange(SHAPE["vocab_size"]) for _ in range(n)] for n in LENGTHS]
    logits = Paged(config, weights, 16, LENGTHS).run(prompts, [LENGTHS])
    return config, weights, prompts, torch.cat(logits)


def found(
    device: torch.device, name: str, steps: Steps, make: Callable[..., Model] = fused
) -> Tensor:
    config, weights, prompts, _ = expected(name)
    there = {key: weight.to(device) for key, weight in weights.items()}
    return torch.cat(Paged(config, there, 16, LENGTHS, make).run(prompts, steps)).cpu()


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_equal_those_of_plain_torch(device: torch.device, name: str) -> None:
    logits = found(device, name, STEPS)
    torch.testing.assert_close(logits, expected(name)[3], atol=2e-4, rtol=0)


class Counting(TorchDispatchMode):
    """Counts what torch computes: views and memory cost nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own lack
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        if not func.is_view and not name.startswith(("empty", "new_empty", "_unsafe_view")):
            self.names.append(name)
        return func(*args, **kwargs or {})


class Launches:
    """A kernel that is counted. What the interpreter does with torch meanwhile is not."""

    def __init__(self, name: str, kernel: Any, launched: list[str]) -> None:
        self._name, self._kernel, self._launched = name, kernel, launched

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **options: Any) -> None:
            self._launched.append(self._name)
            with _disable_current_modes():
                self._kernel[grid](*args, **options)

        return launch


def kernels(device: torch.device, num_layers: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a decode step of one sequence."""
    made = random_model("Qwen3", HEADS | {"num_hidden_layers": num_layers})
    config = from_hub(made.config.to_dict())
    launched: list[str] = []
    weights = {key: weight.to(device) for key, weight in made.state_dict().items()}
    paged = Paged(config, weights, 16, (3,), fused)
    paged.run([[1, 2]], [[2]])
    inputs = paged._inputs([[1, 2, 3]], [0], [2], [1])
    with monkeypatch.context() as patch, torch.no_grad(), Counting() as counting:
        for module in (step_kernels, paged_kernels):
            for name, kernel in list(vars(module).items()):
                if isinstance(kernel, KernelInterface) and not name.startswith("_"):
                    patch.setattr(module, name, Launches(name, kernel, launched))
        paged.model.forward(inputs)
    return [*launched, *counting.names]


@pytest.mark.skipif(not knobs.runtime.interpret, reason="counts what the interpreter is asked")
def test_a_layer_takes_ten_kernels_at_most(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (kernels(device, layers, monkeypatch) for layers in (1, 2))
    layer = Counter(two) - Counter(one)
    assert sum(layer.values()) == 9, layer  # a tenth where decodes are cut into splits
    assert "_local_scalar_dense" not in two, "the host waits for the device"


def test_replayed_steps_filled_up_with_rows_equal_computed_ones(device: torch.device) -> None:
    logits = found(device, "llama, biased", STEPS, replayed)
    torch.testing.assert_close(logits, expected("llama, biased")[3], atol=2e-4, rtol=0)


def plain_8bit(config: LlmConfig, weights: Mapping[str, Stored], cache: KvCache) -> Model:
    attention = TorchAttention(cache, config.attentions)
    return TorchDecoder(Weights(weights, config, quantization="fp8"), attention)


def fused_8bit(config: LlmConfig, weights: Mapping[str, Stored], cache: KvCache) -> Model:
    return fused(config, weights, cache, "fp8")


def test_eight_bit_weights_are_multiplied_as_plain_torch_does(device: torch.device) -> None:
    wanted = found(device, "8 bit", [LENGTHS], plain_8bit)
    logits = found(device, "8 bit", STEPS, fused_8bit)
    # Rounded otherwise here and there; without the layers' scales nothing would be alike.
    assert error(logits, wanted) < 0.1 < error(wanted, expected("8 bit")[3]) < 0.5


def test_an_eight_bit_cache_changes_little(device: torch.device) -> None:
    def eight_bit(config: LlmConfig, weights: Mapping[str, Stored], cache: KvCache) -> Model:
        like = cache.layers[0]
        small = KvCache(
            config, like.shape[1], like.shape[2], FP8, like.device, [(0.02, 0.05), (0.03, 0.01)]
        )
        return fused(config, weights, small)

    logits, wanted = found(device, "8 bit", STEPS, eight_bit), expected("8 bit")[3]
    assert error(logits, wanted) < 0.35
