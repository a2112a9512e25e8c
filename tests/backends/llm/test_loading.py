"""What a process loads of a model: 8-bit weights, the measured cache, what is refused."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from paged_models import LENGTHS, SHAPE, Paged, random_model, whole
from safetensors.torch import load_file, save_file
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm import loading
from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.cache_size import cache_scales, size_cache
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.device.devices import MemoryUse
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.formats import join, quantised
from trivet.backends.llm.matrices.fp8 import FP8, Fp8
from trivet.backends.llm.matrices.matrix import Matrix, Stored
from trivet.backends.llm.matrices.rounding import rounded_to_8
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.steps.measure import largest_step
from trivet.backends.llm.steps.runner import HeldModel, Model
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.taking import Weights

CPU = torch.device("cpu")
MIB = 1 << 20
SIZES = {"hidden_size": 96, "intermediate_size": 96, "num_hidden_layers": 1}
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PROMPTS = [[(7 * n + at) % SHAPE["vocab_size"] for at in range(n)] for n in LENGTHS]


def logits(config: LlmConfig, weights: Mapping[str, Stored], quantization: str = "") -> Tensor:
    def make(config: LlmConfig, weights: Mapping[str, Stored], cache: KvCache) -> Model:
        attention = TorchAttention(cache, config.attentions)
        return TorchDecoder(Weights(weights, config, quantization=quantization), attention)

    return torch.cat(Paged(config, weights, 16, LENGTHS, make).run(PROMPTS, whole()))


def save_8bit(
    folder: Path, scale: Callable[[Tensor], Tensor], method: str = "compressed-tensors"
) -> tuple[LlmConfig, dict[str, Tensor]]:
    """A model's folder with matrices of 8-bit numbers, and the same model with these numbers times
    their scales."""
    made = random_model("Llama", SIZES)
    made.save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text())
    kind = {"format": "float-quantized"} if method == "compressed-tensors" else {}
    values["quantization_config"] = {"quant_method": method, **kind}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "tokenizer.json").write_text(
        '{"version": "1.0", "added_tokens": [],'
        ' "model": {"type": "BPE", "vocab": {}, "merges": []}}'
    )
    stored, exact = load_file(folder / "model.safetensors"), {}
    for name, weight in list(stored.items()):
        exact[name] = weight
        if name.rpartition(".")[0].endswith(MATRICES):
            by = scale(weight)
            stored[name] = (weight / by).to(FP8)
            stored[f"{name}_scale"] = by
            stored[name.replace("weight", "input_scale")] = torch.tensor(0.1)
            exact[name] = stored[name].float() * by
    save_file(stored, folder / "model.safetensors")
    return from_hub(made.config.to_dict()), exact


def per_tensor(weight: Tensor) -> Tensor:
    return weight.abs().max() / 448


def per_row(weight: Tensor) -> Tensor:
    return weight.abs().amax(dim=1, keepdim=True) / 448


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("scale", [per_tensor, per_row])
@pytest.mark.parametrize("method", ["fp8", "compressed-tensors"])
def test_files_of_8_bit_numbers_are_multiplied_as_such(
    tmp_path: Path, scale: Callable[[Tensor], Tensor], method: str
) -> None:
    _, exact = save_8bit(tmp_path, scale, method)
    config, weights, _ = load_model(tmp_path, torch.float32)
    matrix = weights["model.layers.0.self_attn.q_proj.weight"]
    assert isinstance(matrix, Fp8)
    assert matrix.data.dtype == FP8
    # What is left is the rounding of what they are multiplied with.
    assert error(logits(config, weights), logits(config, exact)) < 0.12


BLOCKS = (40, 32)
"""Neither divides a matrix' 96 rows and columns into equal parts."""


def per_block(weight: Tensor) -> Tensor:
    """float32, of the matrix' shape: the same for all of a block."""
    scales = torch.empty_like(weight)
    for row in range(0, len(weight), BLOCKS[0]):
        for column in range(0, weight.shape[1], BLOCKS[1]):
            block = slice(row, row + BLOCKS[0]), slice(column, column + BLOCKS[1])
            scales[block] = weight[block].abs().max() / 448
    return scales


def block_scaled(folder: Path, method: str) -> tuple[LlmConfig, dict[str, Tensor]]:
    """As `save_8bit`, with a scale a block: as DeepSeek's and Qwen's files have it, or as
    compressed-tensors' have it."""
    config, exact = save_8bit(folder, per_block, method)
    stored = load_file(folder / "model.safetensors")
    for name in [name for name in stored if name.endswith("weight_scale")]:
        scales = stored.pop(name)[:: BLOCKS[0], :: BLOCKS[1]].contiguous()
        stored[name if method == "compressed-tensors" else f"{name}_inv"] = scales
    save_file(stored, folder / "model.safetensors")
    values = json.loads((folder / "config.json").read_text())
    given = values["quantization_config"]
    if method == "compressed-tensors":
        weights = {"num_bits": 8, "strategy": "block", "block_structure": list(BLOCKS)}
        given["config_groups"] = {"group_0": {"weights": weights}}
    else:
        given["weight_block_size"] = list(BLOCKS)
    (folder / "config.json").write_text(json.dumps(values))
    return config, exact


@pytest.mark.parametrize("method", ["fp8", "compressed-tensors"])
def test_files_with_a_scale_a_block_are_read_exactly(tmp_path: Path, method: str) -> None:
    _, exact = block_scaled(tmp_path, method)
    config, weights, _ = load_model(tmp_path, torch.float32)
    torch.testing.assert_close(logits(config, weights), logits(config, exact))
    # In 8 bits anew, by rows.
    assert error(logits(config, weights, "fp8"), logits(config, exact)) < 0.2


def test_scales_of_blocks_that_are_missing_or_of_another_shape_are_named(tmp_path: Path) -> None:
    block_scaled(tmp_path, "fp8")
    stored = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    scales = stored.pop(f"{name}_scale_inv")
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(LoadFailed, match=rf"'{name}' .* needs scales of shape \[3, 3\].*neither"):
        load_model(tmp_path, torch.float32)
    save_file(stored | {f"{name}_scale": scales[:2].clone()}, tmp_path / "model.safetensors")
    with pytest.raises(LoadFailed, match=r"got \[2, 3\]"):
        load_model(tmp_path, torch.float32)


def test_weights_are_quantised_at_load_to_half_their_size() -> None:
    config = from_hub(random_model("Llama", SIZES).config.to_dict())
    weights = random_model("Llama", SIZES).state_dict()
    assert error(logits(config, weights, "fp8"), logits(config, weights)) < 0.2
    matrix = Dense(torch.randn(32, 64, dtype=torch.bfloat16))
    small = quantised(matrix, "fp8")
    assert small.nbytes == matrix.nbytes // 2 + 32 * 4  # and a scale an output
    assert quantised(small, "fp8") is small


def test_a_product_of_8_bit_numbers_is_near_the_exact_one() -> None:
    torch.manual_seed(1)
    rows, data, bias = torch.randn(5, 64), torch.randn(48, 64), torch.randn(48)
    assert error(Fp8.of(Dense(data)).product(bias)(rows), rows @ data.T + bias) < 0.06
    # What is large hides nothing else: each row has a scale of its own.
    by_row, by_column = torch.ones(5, 1), torch.ones(48, 1)
    by_row[0] = by_column[0] = 1000
    found = Fp8.of(Dense(data * by_column)).product()(rows * by_row)
    assert error(found / by_row / by_column.T, rows @ data.T) < 0.06


def test_matrices_of_different_formats_are_multiplied_as_one() -> None:
    torch.manual_seed(1)
    dense = Dense(torch.randn(32, 64))
    parts: list[Matrix] = [dense, rounded_to_8(dense), Dense(torch.randn(16, 64))]
    rows, bias = torch.randn(3, 64), torch.randn(80)
    joined = join(parts)
    assert joined.shape == (80, 64)
    wanted = rows @ torch.cat([part.expanded() for part in parts]).T + bias
    torch.testing.assert_close(joined.product(bias)(rows), wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(joined.expanded() @ rows.T, (wanted - bias).T, atol=1e-4, rtol=0)


def test_shapes_that_8_bit_products_cannot_have_are_refused() -> None:
    with pytest.raises(LoadFailed, match=r"\[8, 64\] cannot be multiplied in 8 bits.*quantization"):
        Fp8.of(Dense(torch.randn(8, 64))).product()


def test_an_8_bit_weight_without_a_scale_is_named(tmp_path: Path) -> None:
    save_8bit(tmp_path, per_tensor)
    stored = load_file(tmp_path / "model.safetensors")
    del stored["model.layers.0.mlp.down_proj.weight_scale"]
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(LoadFailed, match=r"'model.layers.0.mlp.down_proj.weight' has no scale"):
        load_model(tmp_path, torch.float32)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"quant_method": "eetq"}, "quantised by 'eetq'"),
        ({"quant_method": "compressed-tensors", "format": "marlin-24"}, "format 'marlin-24'"),
        ({"quant_method": "gptq", "bits": 3, "group_size": 128}, "bits 3, which cannot be read"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 0}, "group_size 0"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "'marlin'"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "version 'gemv'"),
        ({"quant_method": "awq", "bits": 8}, "bits 8, which cannot be read; 4 can"),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "int4"},
            "bnb_4bit_quant_type 'int4'",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {"group_0": {"weights": {"num_bits": 3}}},
            },
            "num_bits 3",
        ),
        (
            {"quant_method": "fp8", "weight_block_size": [128]},
            r"weight_block_size \[128\]; it must",
        ),
        ({"quant_method": "fp8", "weight_block_size": [128, 0]}, r"\[128, 0\]; it must be two"),
    ],
)
def test_quantisations_that_cannot_be_read_are_named(given: dict[str, object], said: str) -> None:
    values = random_model("Llama", SIZES).config.to_dict() | {"quantization_config": given}
    with pytest.raises(LoadFailed, match=said):
        from_hub(values)


def test_scales_of_the_cache_come_from_the_file() -> None:
    weights = {
        "model.layers.1.self_attn.k_scale": torch.tensor([0.5]),
        "model.layers.1.self_attn.v_scale": torch.tensor(0.25),
    }
    config = from_hub(random_model("Llama", SIZES | {"num_hidden_layers": 2}).config.to_dict())
    assert cache_scales(weights, config) == [(1.0, 1.0), (0.5, 0.25)]


class Remembering:
    """A model that keeps what it was given."""

    def forward(self, inputs: StepInputs) -> Tensor:
        self.inputs = inputs
        return torch.randn(len(inputs.sample_rows), 60)


@pytest.mark.parametrize(("budget", "most", "rows"), [(50, 8, 8), (3, 8, 3), (0, 4, 4)])
def test_the_largest_step_is_as_large_as_a_step_may_be(budget: int, most: int, rows: int) -> None:
    model = Remembering()
    settings = EngineSettings(
        "model", max_batched_tokens=budget, max_num_seqs=most, max_model_len=20
    )
    largest_step(model, settings, CPU)
    given = model.inputs
    assert len(given.token_ids) == (budget or 512)
    assert len(given.sequence_lengths) == len(given.sample_rows) == rows
    assert given.query_starts[-1] == len(given.token_ids)
    assert torch.equal(given.query_starts[1:] - given.query_starts[:-1], given.sequence_lengths)
    assert (given.slot_mapping == -1).all()


class ScriptedMeter:
    """Memory as a GPU would report it."""

    def allocated(self) -> int:
        return 10 * MIB

    def peak(self, run: Callable[[], None]) -> int:
        run()
        return 30 * MIB


def load_measured(
    monkeypatch: pytest.MonkeyPatch, settings: EngineSettings, adapters: AdapterBank | None = None
) -> tuple[HeldModel, int, LlmConfig]:
    """A model as a GPU of 1000 MiB would get it, on a processor."""
    made = random_model("Llama", SIZES)
    config, weights = from_hub(made.config.to_dict()), made.state_dict()
    monkeypatch.setattr(
        MemoryUse, "before", classmethod(lambda cls, device, size: cls(1000 * MIB, MIB, size))
    )
    taken = Weights(weights, config, adapters=adapters)
    model, num_blocks = loading._load_measured(
        settings, taken, torch.float32, CPU, [(1.0, 1.0)], ScriptedMeter()
    )
    return model, num_blocks, config


def test_the_cache_gets_what_the_measured_step_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EngineSettings(
        "model", attention="torch", max_model_len=60_000, max_num_seqs=16, cuda_graphs=False,
        gpu_memory_utilization=0.5,
    )  # fmt: skip
    model, num_blocks, config = load_measured(monkeypatch, settings)
    left = (500 - 1 - 10 - 20 - 256) * MIB
    assert num_blocks == left // (2 * 1 * 2 * 16 * 4 * 16)
    ours = KvCache(config, 9, 16, torch.float32)
    model.hold(ours)
    inputs = StepInputs(
        torch.tensor([3]), torch.tensor([0]), torch.tensor([16]),
        torch.tensor([0, 1], dtype=torch.int32), torch.tensor([1], dtype=torch.int32),
        torch.tensor([[1]], dtype=torch.int32), torch.tensor([0]),
    )  # fmt: skip
    model.forward(inputs)
    assert ours.layers[0][:, 1, 0].abs().min() > 0


def test_recorded_steps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EngineSettings(
        "model", attention="torch", max_model_len=60_000, max_num_seqs=16,
        gpu_memory_utilization=0.5,
    )  # fmt: skip
    _, with_graphs, _ = load_measured(monkeypatch, settings)
    _, without, _ = load_measured(monkeypatch, replace(settings, cuda_graphs=False))
    assert (without - with_graphs) * 4096 == pytest.approx(16 * 120 * 8, abs=4096)


@pytest.mark.parametrize("kv_cache_bytes", [0, 150 * MIB])
def test_adapters_have_a_budget_of_their_own(
    monkeypatch: pytest.MonkeyPatch, kv_cache_bytes: int
) -> None:
    settings = EngineSettings(
        "model", attention="torch", max_model_len=2000, max_num_seqs=16, cuda_graphs=False,
        gpu_memory_utilization=0.5, kv_cache_bytes=kv_cache_bytes, max_batched_tokens=64,
    )  # fmt: skip
    few, many = (AdapterBank(torch.float32, CPU, rank) for rank in (8, 1 << 20))
    load_measured(monkeypatch, replace(settings, max_lora_rank=8, max_loras=3), few)
    ranks = 8 * sum(
        place.inputs + part.stop - part.start for place in few.places.all for part in place.parts
    )
    assert few.budget == 3 * 2 * 4 * ranks, "in slots, and in a step's stack"
    left = (500 - 1 - 10 - 20 - 256) * MIB
    load_measured(monkeypatch, replace(settings, max_lora_rank=1 << 20, max_loras=1), many)
    share = left - kv_cache_bytes if kv_cache_bytes else left // 8
    assert many.budget is not None
    assert share / 2 < many.budget < share, "rows of a step are lowered to some of it"


def test_the_longest_context_that_fits_is_proposed() -> None:
    config = from_hub(random_model("Llama", SIZES).config.to_dict())
    settings = EngineSettings("model", max_model_len=2000, max_num_seqs=4)
    with pytest.raises(LoadFailed, match=r"kv_cache_bytes to 516096 or max_model_len to 1008"):
        size_cache(config, settings, torch.float32, 64 * 4096)


def test_a_cache_of_8_bits_holds_twice_the_tokens(tmp_path: Path) -> None:
    save_8bit(tmp_path, per_tensor)
    settings = EngineSettings(
        str(tmp_path), device="cpu", dtype="bfloat16", kv_cache_bytes=1 << 18, max_num_seqs=64
    )
    found, _ = loading.load_part(replace(settings, kv_cache_dtype="fp8"), CPU)
    plain, _ = loading.load_part(settings, CPU)
    assert found.num_blocks == 2 * plain.num_blocks
