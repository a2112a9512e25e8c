"""Packed weights as text: SmolLM2 finds a text as likely as transformers finds it with the numbers
that the file stands for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import quantised_folders as folders
import torch
import transformers
from llm_site import REPOSITORY
from paged_models import Paged
from quantised_folders import Written, quantise_folder
from torch import Tensor

from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.families.config import LlmConfig
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
    "w8a8": folders.whole_numbers(),
    "nf4": folders.four_bits_by_table(),
}
KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4")
"""Of those that the gguf package writes."""


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

    def perplexity(self, weights: Mapping[str, Stored], quantization: str = "") -> float:
        """As our engine computes it, in torch."""

        def make(config: LlmConfig, weights: Mapping[str, Stored], cache: KvCache) -> Model:
            attention = TorchAttention(cache, config.attentions)
            return TorchDecoder(Weights(weights, config, quantization=quantization), attention)

        count = len(self.token_ids)
        paged = Paged(self.config, weights, 16, [count], make)
        return self._of(paged.run([self.token_ids], [[count]])[0])

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
    assert_near(small.perplexity(weights), small.perplexity_of_numbers(numbers))


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
    assert_near(small.perplexity(weights), small.perplexity_of_numbers(numbers))


@pytest.mark.parametrize(("quantization", "most"), [("int8", 1.01), ("int4", 1.1)])
def test_weights_that_are_rounded_at_load_lose_little(
    quantization: str, most: float, small: Small
) -> None:
    plain = {name: weight.bfloat16() for name, weight in small.exact.items()}
    found = small.perplexity(plain, quantization)
    assert found < small.perplexity_of_numbers(small.exact) * most


def assert_near(found: float, wanted: float) -> None:
    assert abs(found / wanted - 1) < 0.01, (found, wanted)
