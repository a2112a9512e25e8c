"""Packed weights, and keys and values in 8 bits, as text: SmolLM2 finds a text as likely as
transformers finds it with the numbers that the file stands for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import quantised_folders as folders
import torch
import transformers
from k_quants import WRITERS, written
from llm_site import REPOSITORY
from native_models import NATIVE, native_model
from paged_models import Paged, Steps
from quantised_folders import Written, quantise_folder
from torch import Tensor

from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.matrices.fp8 import FP8
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.text.tokenizer import Tokenizer
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.gguf_blocks import grouped
from trivet.backends.llm.weights.taking import Weights

pytestmark = pytest.mark.slow
TEXT = """The harbour lay still in the early morning. A few boats had come in during the night, and
their crews were asleep below deck while the gulls walked up and down the quay. At six the baker
opened his door, and the smell of warm bread went out over the water. An old woman with a basket
came down the hill, as she did every day, to see whether the fishermen had anything to sell. She
asked the price of two mackerel, shook her head, and bought them all the same. By the time the sun
stood over the lighthouse, the market was full of people who talked about the weather, the war in
the newspapers and the new school, which was to be finished before the winter came."""
FOLDERS = {
    "gptq": folders.gptq(),
    "gptq-act-order": folders.gptq(8, version=2, is_ordered=True),
    "awq": folders.awq(),
    "compressed": folders.compressed(is_symmetric=False),
    "compressed-8": folders.compressed(8),
    "w8a8": folders.whole_numbers(),
    "w8a8-static": folders.whole_numbers(is_static=True, is_symmetric=False),
    "nf4": folders.four_bits_by_table(),
    "int8": folders.eight_bits_by_row(),
    "fp8": folders.float_rows(),
    "fp8-blocks": folders.float_blocks(),
}
KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4")
"""Those that the gguf package writes."""
K_QUANTS = "down_proj"
"""The matrices whose inputs are whole blocks of 256: the others stay numbers then, where llama.cpp
takes other types."""


@dataclass(frozen=True, slots=True)
class Small:
    """The small language model, in numbers."""

    folder: Path
    """As Hugging Face's."""
    config: LlmConfig
    exact: dict[str, Tensor]
    token_ids: list[int]
    reference: Any
    """Of transformers."""

    def perplexity(
        self,
        weights: Mapping[str, Stored],
        quantization: str = "",
        kept: torch.dtype | None = None,
    ) -> float:
        """As our engine computes it, in torch. `kept`: of keys and values."""

        def make(config: LlmConfig, weights: Mapping[str, Stored], cache: KvCache) -> Model:
            attention = TorchAttention(cache, config.attentions)
            return TorchDecoder(Weights(weights, config, quantization=quantization), attention)

        count = len(self.token_ids)
        paged = Paged(self.config, weights, 16, [count], make, kept)
        return self._of(paged.run([self.token_ids], [[count]])[0])

    def compiled(
        self, weights: Mapping[str, Stored], at_once: int, kept: torch.dtype | None = None
    ) -> float:
        """As the compiled step computes it, some tokens at a time."""
        assert not isinstance(NATIVE, str)
        count, make = len(self.token_ids), partial(native_model, amx=NATIVE.has_amx)
        steps: Steps = [[min(at_once, count - done)] for done in range(0, count, at_once)]
        paged = Paged(self.config, weights, 16, [count], make, kept)
        return self._of(paged.run([self.token_ids], steps)[0])

    def perplexity_of_numbers(self, numbers: dict[str, Tensor]) -> float:
        """As transformers computes it, in float32."""
        wide = {name: weight.float() for name, weight in numbers.items()}
        self.reference.load_state_dict(wide, strict=False)
        with torch.no_grad():
            return self._of(self.reference(torch.tensor([self.token_ids])).logits[0])

    def _of(self, logits: Tensor) -> float:
        wanted = torch.tensor(self.token_ids[1:])
        return math.exp(torch.nn.functional.cross_entropy(logits[:-1].float(), wanted))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    found = list((REPOSITORY / "smollm2" / "1").glob("*.gguf"))
    if not found:
        pytest.skip("no weights of smollm2: run model_repository/build.py")
    config, weights, files = load_model(found[0], torch.float32)
    exact = {
        name: weight if isinstance(weight, Tensor) else weight.expanded()
        for name, weight in weights.items()
    }
    heads = config.attention
    hub = transformers.LlamaConfig(
        vocab_size=config.vocabulary_size, hidden_size=config.hidden_size,
        intermediate_size=1536,
        num_hidden_layers=config.num_layers, num_attention_heads=heads.num_heads,
        num_key_value_heads=heads.num_kv_heads, head_dim=heads.head_dim,
        max_position_embeddings=2048, rms_norm_eps=config.norm.eps, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("small")
    reference = transformers.LlamaForCausalLM(hub).eval()
    hub.architectures = ["LlamaForCausalLM"]
    hub.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(files.json)
    token_ids = Tokenizer.from_files(files).encode(TEXT, add_special_tokens=False)
    return Small(folder, config, exact, token_ids, reference)


@pytest.mark.parametrize("name", FOLDERS)
def test_text_is_as_likely_as_with_the_numbers_of_the_file(name: str, small: Small) -> None:
    written: Written = FOLDERS[name]
    numbers = quantise_folder(small.folder, written, small.exact)
    _, weights, _ = load_model(small.folder, torch.bfloat16)
    assert_as_likely(small, weights, numbers)


@pytest.mark.parametrize("name", KINDS)
def test_text_is_as_likely_as_with_what_the_gguf_package_reads(name: str, small: Small) -> None:
    kind = gguf.GGMLQuantizationType[name]
    numbers, weights = dict(small.exact), dict[str, Stored](small.exact)
    for weight, exact in small.exact.items():
        if exact.dim() == 1:
            weights[weight] = exact.bfloat16()
            continue
        blocks = gguf.quants.quantize(exact.numpy(), kind)
        numbers[weight] = torch.from_numpy(np.array(gguf.quants.dequantize(blocks, kind)))
        matrix = grouped(kind, torch.from_numpy(blocks), torch.bfloat16)
        assert matrix is not None
        weights[weight] = matrix
    assert_as_likely(small, weights, numbers)


@pytest.mark.parametrize("name", WRITERS)
def test_text_is_as_likely_with_blocks_of_256(name: str, small: Small) -> None:
    kind = gguf.GGMLQuantizationType[name]
    numbers, weights = dict(small.exact), dict[str, Stored](small.exact)
    for weight, exact in small.exact.items():
        if K_QUANTS not in weight:
            numbers[weight] = exact.bfloat16().float()
            weights[weight] = exact.bfloat16()
            continue
        blocks = written(name, exact.numpy())
        numbers[weight] = torch.from_numpy(np.array(gguf.quants.dequantize(blocks, kind)))
        assert (numbers[weight] - exact).abs().mean() < exact.abs().mean() / 2
        matrix = grouped(kind, torch.from_numpy(blocks), torch.bfloat16)
        assert matrix is not None
        weights[weight] = matrix
    assert_as_likely(small, weights, numbers)


def test_keys_and_values_in_8_bits_lose_little(small: Small) -> None:
    weights = {name: weight.bfloat16() for name, weight in small.exact.items()}
    wanted = small.perplexity(weights)
    found = [small.perplexity(weights, kept=FP8)]
    if not isinstance(NATIVE, str):
        found += [small.compiled(weights, at_once, FP8) for at_once in (1, 64)]
    assert all(abs(each / wanted - 1) < 0.03 for each in found), (found, wanted)


@pytest.mark.parametrize(("quantization", "most"), [("int8", 1.01), ("int4", 1.1)])
def test_weights_that_are_rounded_at_load_lose_little(
    quantization: str, most: float, small: Small
) -> None:
    plain = {name: weight.bfloat16() for name, weight in small.exact.items()}
    found = small.perplexity(plain, quantization)
    assert found < small.perplexity_of_numbers(small.exact) * most


def assert_as_likely(
    small: Small, weights: Mapping[str, Stored], numbers: dict[str, Tensor]
) -> None:
    """Computed by torch, and by the compiled step as it multiplies one row, a few and many."""
    wanted, found = small.perplexity_of_numbers(numbers), {"torch": small.perplexity(weights)}
    if not isinstance(NATIVE, str):
        found |= {f"by {count}": small.compiled(weights, count) for count in (1, 9, 128)}
    print({name: f"{each / wanted - 1:+.4f}" for name, each in found.items()})
    assert all(abs(each / wanted - 1) < 0.01 for each in found.values()), (found, wanted)
