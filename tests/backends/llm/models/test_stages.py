"""Stages hold their part of a model each, and one after the other give exactly what it gives."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from family_gguf import FORMS, values_for_gguf, write_family
from family_models import BY_NAME, saved
from paged_models import LENGTHS, Paged, mixed, random_model, save_tokenizer
from quantised_folders import gptq, quantise_folder
from safetensors.torch import load_file
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.registry import FAMILIES
from trivet.backends.llm.families.staging import Stage
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.taking import Weights

PROMPTS = [[(7 * n + at) % 96 for at in range(n)] for n in LENGTHS]
ALWAYS = {"GPT2", "Gemma2", "Bloom", "DeepseekV3", "GptOss"}
"""Between them they have learned positions, norms and multipliers of embeddings, tied heads, caps,
layers that differ, latents, sinks and experts that files have as one."""


class Chain:
    """A Model: its stages one after the other, each over a cache of its own."""

    def __init__(
        self, path: Path, config: LlmConfig, whole: KvCache, count: int, quantization: str
    ) -> None:
        self.names: list[set[str]] = []
        self._stages: list[TorchDecoder] = []
        num_blocks = whole.layers[0].shape[1]
        for number in range(count):
            stage = Stage(number, count)
            _, weights, _ = load_model(path, torch.float32, FAMILIES, stage)
            mine = stage.of(config)
            cache = KvCache(mine, num_blocks, whole.block_size, torch.float32)
            for layer in cache.layers:
                layer[:, 1:] = torch.nan
            attention = TorchAttention(cache, mine.attentions)
            taken = Weights(weights, mine, quantization=quantization)
            self._stages.append(TorchDecoder(taken, attention))
            self.names.append(set(weights))

    def forward(self, inputs: StepInputs) -> Tensor:
        given: Tensor | None = None
        for stage in self._stages:
            given = stage.forward(replace(inputs, states=given))
        assert given is not None
        return given


def chained(path: Path, count: int, quantization: str = "") -> tuple[Tensor, Tensor, Chain]:
    """What one process and what stages give, and the stages."""
    config, weights, _ = load_model(path, torch.float32)
    chains: list[Chain] = []

    def make(config: LlmConfig, given: Mapping[str, Stored], cache: KvCache) -> Model:
        if not chains:  # the first time
            chains.append(Chain(path, config, cache, count, quantization))
            return chains[0]
        attention = TorchAttention(cache, config.attentions)
        return TorchDecoder(Weights(given, config, quantization=quantization), attention)

    found, wanted = (
        Paged(config, weights, 16, LENGTHS, make).run(PROMPTS, mixed()) for _ in range(2)
    )
    return torch.cat(wanted), torch.cat(found), chains[0]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in ALWAYS)) for name in BY_NAME],
)
def test_stages_give_exactly_what_the_whole_gives(name: str, tmp_path: Path) -> None:
    values = BY_NAME[name].values()
    folder = saved(BY_NAME[name].model(values), values, tmp_path)
    wanted, found, _ = chained(folder, 2)
    torch.testing.assert_close(found, wanted, atol=0, rtol=0)


def test_each_stage_reads_and_holds_its_own_weights_only(tmp_path: Path) -> None:
    made = BY_NAME["Llama"]
    values = made.values({"num_hidden_layers": 5, "tie_word_embeddings": True})
    wanted, found, chain = chained(saved(made.model(values), values, tmp_path), 3)
    torch.testing.assert_close(found, wanted, atol=0, rtol=0)
    layers = [{name.split(".")[2] for name in names if ".layers." in name} for names in chain.names]
    assert layers == [{"0", "1"}, {"2", "3"}, {"4"}]
    rest = [{name for name in names if ".layers." not in name} for names in chain.names]
    # The table that is both is held by both ends.
    assert rest == [
        {"model.embed_tokens.weight"},
        set(),
        {"model.embed_tokens.weight", "model.norm.weight"},
    ]


def test_weights_stay_packed_in_stages(tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "vocab_size": 96,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    }  # fmt: skip
    random_model("Llama", sizes).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    wanted, found, _ = chained(tmp_path, 2, "int4")
    torch.testing.assert_close(found, wanted, atol=0, rtol=0)
    quantise_folder(tmp_path, gptq())
    wanted, found, chain = chained(tmp_path, 2)
    torch.testing.assert_close(found, wanted, atol=0, rtol=0)
    assert not chain.names[0] & chain.names[1]


@pytest.mark.parametrize("name", ["Granite", pytest.param("DeepseekV3", marks=pytest.mark.slow)])
def test_stages_of_gguf_files_give_exactly_what_the_whole_gives(name: str, tmp_path: Path) -> None:
    made, form = BY_NAME[name], FORMS[name]
    values = values_for_gguf(made, form)
    folder = saved(made.model(values), values, tmp_path)
    path = tmp_path / "model.gguf"
    write_family(path, form, values, load_file(folder / "model.safetensors"))
    wanted, found, chain = chained(path, 2)
    torch.testing.assert_close(found, wanted, atol=0, rtol=0)
    assert not any(".layers.1." in name for name in chain.names[0])


def test_more_stages_than_layers_are_refused_with_the_numbers(tmp_path: Path) -> None:
    values = BY_NAME["Llama"].values()
    folder = saved(BY_NAME["Llama"].model(values), values, tmp_path)
    with pytest.raises(LoadFailed, match=r"2 layers .* to 3 stages.*pipeline_parallel_size"):
        load_model(folder, torch.float32, FAMILIES, Stage(0, 3))


def test_layers_are_shared_out_evenly() -> None:
    counts = [[len(Stage(n, size).layers(32)) for n in range(size)] for size in (1, 3, 4, 5)]
    assert counts == [[32], [11, 11, 10], [8, 8, 8, 8], [6, 7, 7, 6, 6]]
    assert [Stage(n, 3).layers(32).start for n in range(3)] == [0, 11, 22]
