"""Quantised folders: what is multiplied is what the file stands for, and stays packed."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import quantised_folders as folders
import torch
from house_rules import ROOT
from paged_models import LENGTHS, Paged, random_model, whole
from quantised_folders import Written, quantise_folder
from safetensors.torch import load_file, save_file
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.quantisation import METHODS, quantisation
from trivet.backends.llm.matrices.grouped import Grouped
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.gguf_blocks import KINDS

SIZES = {
    "vocab_size": 96, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
}  # fmt: skip
PROMPTS = [[(7 * n + at) % 96 for at in range(n)] for n in LENGTHS]
FORMATS = {
    "gptq-4": folders.gptq(),
    "gptq-4-symmetric": folders.gptq(is_symmetric=True),
    "gptq-4-version-2": folders.gptq(version=2),
    "gptq-4-act-order": folders.gptq(is_ordered=True),
    "gptq-4-groups-of-64": folders.gptq(size=64),
    "gptq-4-one-group": folders.gptq(size=0),
    "gptq-8": folders.gptq(8),
    "gptq-8-act-order": folders.gptq(8, version=2, is_symmetric=True, is_ordered=True),
    "gptq-2": folders.gptq(2),
    "awq": folders.awq(),
    "awq-groups-of-64": folders.awq(64),
    "compressed-4": folders.compressed(),
    "compressed-4-zeros": folders.compressed(is_symmetric=False),
    "compressed-4-act-order": folders.compressed(is_ordered=True),
    "compressed-8": folders.compressed(8),
    "compressed-w8a8-dynamic": folders.whole_numbers(),
    "compressed-w8a8-static": folders.whole_numbers(is_static=True, is_symmetric=False),
    "bitsandbytes-nf4": folders.four_bits_by_table(is_nested=False),
    "bitsandbytes-nf4-nested": folders.four_bits_by_table(),
    "bitsandbytes-int8": folders.eight_bits_by_row(),
}
"""By what tests call them."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder."""
    folder = tmp_path_factory.mktemp("plain")
    random_model("Llama", SIZES).save_pretrained(folder)
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}, "merges": []}}')
    return folder


def quantised(plain: Path, folder: Path, written: Written) -> dict[str, Tensor]:
    """The same, quantised; the numbers of its weights."""
    shutil.copytree(plain, folder, dirs_exist_ok=True)
    torch.manual_seed(3)
    return quantise_folder(folder, written)


@pytest.mark.parametrize("name", FORMATS)
def test_numbers_are_those_that_the_file_stands_for(name: str, plain: Path, tmp_path: Path) -> None:
    numbers = quantised(plain, tmp_path, FORMATS[name])
    config, weights, _ = load_model(tmp_path, torch.float32)
    assert set(weights) == set(numbers)
    for weight, stored in weights.items():
        if not weight.endswith("_proj.weight"):
            continue
        assert isinstance(stored, Grouped)
        # Minimums are rounded to the type of the scales.
        error = (stored.expanded() - numbers[weight]).abs().max() / numbers[weight].abs().max()
        assert error < 5e-4
        assert stored.nbytes < numbers[weight].nbytes * (stored.code.bits + 2.1) / 32
    ours = torch.cat(Paged(config, weights, 16, LENGTHS).run(PROMPTS, whole()))
    exact = torch.cat(Paged(config, numbers, 16, LENGTHS).run(PROMPTS, whole()))
    assert (ours - exact).norm() / exact.norm() < 2e-3


Q_PROJ = "model.layers.0.self_attn.q_proj"
Change = Callable[[dict[str, Tensor]], object]


def without(name: str) -> Change:
    return lambda stored: stored.pop(f"{Q_PROJ}.{name}")


def changed(name: str, change: Callable[[Tensor], Tensor]) -> Change:
    return lambda stored: stored.update(
        {f"{Q_PROJ}.{name}": change(stored[f"{Q_PROJ}.{name}"]).contiguous()}
    )


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("gptq-4", without("scales"), r"'\S+qweight' has no '\S+q_proj.scales' beside it"),
        ("gptq-4", without("qzeros"), r"has no '\S+q_proj.qzeros' beside it"),
        ("gptq-4", changed("scales", lambda scales: scales[:3]),
         r"has 128 inputs and 3 groups of 32, which do not divide them evenly"),
        ("gptq-4", changed("qzeros", lambda zeros: zeros[:, :3]),
         r"qzeros' is of shape \[4, 3\]; .* of 4 bits and 4 groups needs \[4, 16\]"),
        ("gptq-4", changed("qweight", lambda words: words[:8]),
         r"has 8 words for the 128 inputs of '\S+g_idx'; 4 bits .* need 16"),
        ("gptq-4-act-order", changed("g_idx", lambda groups: groups.clamp(max=2)),
         r"g_idx' shares 128 inputs out to groups of 0 to 64; each of the 4 .* must get 32"),
        ("gptq-4", changed("scales", lambda scales: scales.int()), r"scales' is of type int32"),
        ("gptq-4", changed("qweight", lambda words: words.float()),
         r"qweight' is of type float32; words of codes must be int32"),
        ("awq", changed("scales", lambda scales: scales[:, :8]),
         r"scales' is of shape \[4, 8\]; .* needs \[4, 128\]"),
        ("awq", changed("qweight", lambda words: words[:96]),
         r"has 96 inputs and 4 groups of 32, which do not divide them evenly"),
        ("compressed-4", without("weight_shape"), r"has no '\S+weight_shape' beside it"),
        ("compressed-4", changed("weight_packed", lambda words: words[:, :8]),
         r"is of shape \[128, 8\], which is no matrix \[128, 128\] of 4 bits"),
        ("compressed-4-zeros", changed("weight_zero_point", lambda zeros: zeros[:8]),
         r"weight_zero_point' is of shape \[8, 4\]; .* needs \[16, 4\]"),
        ("compressed-4-act-order", changed("weight_g_idx", lambda groups: groups[:64]),
         r"weight_g_idx' is of shape \[64\]; .* needs \[128\]"),
        ("compressed-w8a8-dynamic", without("weight_scale"), r"has no '\S+weight_scale' beside it"),
        ("compressed-w8a8-dynamic", changed("weight_scale", lambda scales: scales[:5]),
         r"weight_scale' is of shape \[5, 1\]; a matrix of 128 rows needs"),
        ("bitsandbytes-nf4", without("weight.absmax"), r"has no '\S+absmax' beside it"),
        ("bitsandbytes-nf4", changed("weight.absmax", lambda scales: scales[:9]),
         r"absmax' is of shape \[9\]; .* in blocks of 64 needs \[256\]"),
        ("bitsandbytes-nf4", changed("weight.quant_map", lambda table: table[:8]),
         r"with a table of 8 numbers; it must be a matrix, in blocks, with one of 16"),
        ("bitsandbytes-nf4", changed("weight", lambda packed: packed[:99]),
         r"weight' is of shape \[99\]; a matrix \[128, 128\] of 4 bits needs \[8192\]"),
        ("bitsandbytes-int8", changed("SCB", lambda scales: scales[:5]), r"needs \[128\]"),
    ],
)  # fmt: skip
def test_formats_that_are_half_right_are_refused_with_name_and_numbers(
    name: str, change: Change, told: str, plain: Path, tmp_path: Path
) -> None:
    quantised(plain, tmp_path, FORMATS[name])
    stored = load_file(tmp_path / "model.safetensors")
    change(stored)
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(LoadFailed, match=told):
        load_model(tmp_path, torch.float32)


@pytest.mark.parametrize(
    "given",
    [{"quant_method": "gptq", "bits": 4.0},
     {"quant_method": "compressed-tensors", "config_groups": [{}]},
     {"quant_method": "compressed-tensors", "config_groups": {"a": 3}},
     {"quant_method": "compressed-tensors", "format": "pack-quantized",
      "config_groups": {"a": {"weights": {"num_bits": 4.0}}}}],
)  # fmt: skip
def test_configs_of_other_types_are_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(LoadFailed, match=r"quantization_config\.\w+ .*, which cannot be read"):
        quantisation(given)


def test_the_documents_table_has_what_stays_packed() -> None:
    text = (ROOT / "docs" / "llm.md").read_text()
    block = re.search(r"<!-- packed -->\n(.*?)\n<!-- /packed -->", text, re.DOTALL)
    assert block is not None
    first, *others = [line.strip("| ").split(" | ") for line in block[1].splitlines()[2:]]
    named = {gguf.GGMLQuantizationType[name] for name in re.findall(r"`(\w+)`", first[1])}
    assert named == set(KINDS)
    assert {word.strip("`") for word, _ in others} == set(METHODS)
