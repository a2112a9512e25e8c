"""Files that have all experts of a layer as one tensor, also packed in MXFP4."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from family_models import BY_NAME, logits, saved
from paged_models import Paged
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from trivet.backends.api import LoadFailed
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.stacked import unstack

EXPERTS = "mlp.experts."
LENGTHS = (21, 5)
PROMPTS = [[(7 * place + length) % 96 for place in range(length)] for length in LENGTHS]


def packed_folder(folder: Path) -> Path:
    """A gpt-oss whose experts are in MXFP4, as the published files have it."""
    made = BY_NAME["GptOss"]
    values = made.values({"intermediate_size": 64})
    saved(made.model(values), values, folder)
    weights = load_file(folder / "model.safetensors")
    chance = torch.Generator().manual_seed(3)
    for name in [name for name in weights if EXPERTS in name and "bias" not in name]:
        experts, inputs, outputs = weights.pop(name).shape
        shape = (experts, outputs, inputs // 32)
        weights[f"{name}_blocks"] = _bytes(chance, (*shape, 16), 0, 256)
        weights[f"{name}_scales"] = _bytes(chance, shape, 121, 126)
    save_file(weights, folder / "model.safetensors")
    config = values | {"quantization_config": {"quant_method": "mxfp4"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _bytes(chance: torch.Generator, shape: tuple[int, ...], low: int, high: int) -> Tensor:
    return torch.randint(low, high, shape, generator=chance, dtype=torch.uint8)


def test_experts_in_mxfp4_are_what_transformers_makes_of_them(tmp_path: Path) -> None:
    folder = packed_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    plain = {name: each for name, each in weights.items() if each.dtype != torch.uint8}
    for name in [name for name in weights if name.endswith("_blocks")]:
        stem = name.removesuffix("_blocks")
        blocks, scales = weights[name], weights[f"{stem}_scales"]
        plain[stem] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    made = BY_NAME["GptOss"]
    model = made.model(made.values({"intermediate_size": 64}))
    model.load_state_dict(plain)
    config, ours, _ = load_model(folder, torch.float32)
    found = torch.cat(Paged(config, ours, 16, LENGTHS).run(PROMPTS, [LENGTHS]))
    torch.testing.assert_close(found, torch.cat(logits(model, PROMPTS)), atol=1e-4, rtol=0)


class _Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own lack
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.nbytes = max(self.nbytes, made.nbytes)
        return made


def test_experts_in_mxfp4_take_no_more_memory_than_they_have_numbers(tmp_path: Path) -> None:
    folder = packed_folder(tmp_path)
    config, _, _ = load_model(folder, torch.bfloat16)
    weights = {
        name: each for name, each in load_file(folder / "model.safetensors").items()
        if each.dtype == torch.uint8
    }  # fmt: skip
    packed = [each for name, each in weights.items() if name.endswith("_blocks")]
    largest = max(each.numel() * 2 * torch.bfloat16.itemsize for each in packed)
    with _Largest() as made:
        unstack(weights, config, torch.bfloat16)
    assert made.nbytes <= largest


@pytest.mark.parametrize(
    ("scales", "told"), [(None, "there are none"), (torch.zeros(2, 3), r"got \[2, 3\]")]
)
def test_blocks_without_their_scales_are_refused(
    scales: Tensor | None, told: str, tmp_path: Path
) -> None:
    folder = packed_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.experts.down_proj_scales"
    del weights[name]
    save_file(weights | ({} if scales is None else {name: scales}), folder / "model.safetensors")
    with pytest.raises(LoadFailed, match=rf"down_proj_blocks.* need scales .*; {told}"):
        load_model(folder, torch.float32)
