"""Folders of quantised language models, written as the packages that quantise write them, from the
facts of their formats; beside each, the numbers that they stand for."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
Pack = Callable[[str, Tensor], tuple[Tensors, Tensor]]
"""A matrix [outputs, inputs] by the name in front of its ending: its tensors, and its numbers."""
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""AutoAWQ's: which of 8 columns is in each place of a word, from the lowest."""
NF4 = (
    -1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
)  # fmt: skip
"""Of QLoRA's paper, rounded."""


@dataclass(frozen=True, slots=True)
class Written:
    """A way to quantise."""

    config: Mapping[str, Any]
    """config.json's quantization_config."""
    pack: Pack


def quantise_folder(folder: Path, written: Written, exact: Tensors | None = None) -> Tensors:
    """Quantises the layers' matrices of a folder where it lies; all weights' numbers."""
    path = folder / "model.safetensors"
    numbers: Tensors = {}
    stored: Tensors = {}
    for name, weight in (exact or load_file(path)).items():
        if not name.endswith("_proj.weight"):
            stored[name] = numbers[name] = weight
            continue
        tensors, numbers[name] = written.pack(name.removesuffix(".weight"), weight.float())
        stored |= tensors
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, path)
    values = json.loads((folder / "config.json").read_text())
    values["quantization_config"] = dict(written.config)
    (folder / "config.json").write_text(json.dumps(values))
    return numbers


def words(codes: Tensor, bits: int, axis: int) -> Tensor:
    """int32: neighbours along an axis, the lowest bits first."""
    each = 32 // bits
    parts = torch.unflatten(codes.long(), axis, (-1, each)).unbind(axis + 1)
    packed = sum(part << (bits * place) for place, part in enumerate(parts))
    assert isinstance(packed, Tensor)
    return torch.where(packed >= 1 << 31, packed - (1 << 32), packed).int()


@dataclass(frozen=True, slots=True)
class _Groups:
    """Whole numbers, and what each group's are times: [outputs, groups]."""

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    numbers: Tensor


def _groups(weight: Tensor, bits: int, size: int, *, is_symmetric: bool) -> _Groups:
    parts = torch.unflatten(weight, 1, (-1, size or weight.shape[1]))
    most = (1 << bits) - 1
    if is_symmetric:
        scales = (parts.abs().amax(2) * 2 / most).half()
        zeros = torch.full_like(scales, 1 << (bits - 1)).int()
    else:
        least, largest = parts.amin(2).clamp(max=0), parts.amax(2).clamp(min=0)
        scales = ((largest - least) / most).half()
        zeros = (-least / scales.float()).round().clamp(0, most).int()
        # What is one too small for version 1 of GPTQ's files would borrow from its neighbour.
        zeros = zeros.clamp(min=1)
    steps = (parts / scales.float().unsqueeze(2)).round() + zeros.unsqueeze(2)
    codes = steps.clamp(0, most)
    numbers = (codes - zeros.unsqueeze(2)) * scales.float().unsqueeze(2)
    return _Groups(codes.flatten(1).int(), scales, zeros, numbers.flatten(1))


def gptq(
    bits: int = 4,
    size: int = 32,
    *,
    version: int = 1,
    is_symmetric: bool = False,
    is_ordered: bool = False,
) -> Written:
    """AutoGPTQ's and GPTQModel's; `size` 0: one group of all inputs; `is_ordered`: by desc_act."""

    def pack(stem: str, weight: Tensor) -> tuple[Tensors, Tensor]:
        inputs = weight.shape[1]
        order = torch.randperm(inputs) if is_ordered else torch.arange(inputs)
        made = _groups(weight[:, order], bits, size, is_symmetric=is_symmetric)
        back = order.argsort()
        zeros = made.zeros - (1 if version == 1 else 0)
        tensors = {
            f"{stem}.qweight": words(made.codes[:, back].t(), bits, 0),
            f"{stem}.qzeros": words(zeros.t(), bits, 1),
            f"{stem}.scales": made.scales.t(),
            f"{stem}.g_idx": (back // (size or inputs)).int(),
        }
        return tensors, made.numbers[:, back]

    config = {
        "quant_method": "gptq", "bits": bits, "group_size": size or -1, "desc_act": is_ordered,
        "sym": is_symmetric, "checkpoint_format": "gptq" if version == 1 else "gptq_v2",
    }  # fmt: skip
    return Written(config, pack)


def awq(size: int = 32) -> Written:
    """AutoAWQ's, for its kernels of many rows."""

    def interleaved(codes: Tensor) -> Tensor:
        return torch.unflatten(codes, 1, (-1, 8))[..., list(AWQ_ORDER)].flatten(1)

    def pack(stem: str, weight: Tensor) -> tuple[Tensors, Tensor]:
        made = _groups(weight, 4, size, is_symmetric=False)
        tensors = {
            f"{stem}.qweight": words(interleaved(made.codes.t()), 4, 1),
            f"{stem}.qzeros": words(interleaved(made.zeros.t()), 4, 1),
            f"{stem}.scales": made.scales.t(),
        }
        return tensors, made.numbers

    config = {"quant_method": "awq", "bits": 4, "group_size": size, "version": "gemm"}
    return Written(config, pack)


def compressed(
    bits: int = 4, size: int = 32, *, is_symmetric: bool = True, is_ordered: bool = False
) -> Written:
    """compressed-tensors' of the format pack-quantized."""

    def pack(stem: str, weight: Tensor) -> tuple[Tensors, Tensor]:
        inputs = weight.shape[1]
        order = torch.randperm(inputs) if is_ordered else torch.arange(inputs)
        made = _groups(weight[:, order], bits, size, is_symmetric=is_symmetric)
        back = order.argsort()
        tensors = {
            f"{stem}.weight_packed": words(made.codes[:, back], bits, 1),
            f"{stem}.weight_scale": made.scales,
            f"{stem}.weight_shape": torch.tensor(weight.shape),
        }
        if not is_symmetric:
            tensors[f"{stem}.weight_zero_point"] = words(made.zeros, bits, 0)
        if is_ordered:
            tensors[f"{stem}.weight_g_idx"] = (back // size).int()
        return tensors, made.numbers[:, back]

    weights = {"num_bits": bits, "group_size": size, "strategy": "group", "type": "int"}
    return Written(_compressed_config("pack-quantized", weights), pack)


def whole_numbers(*, is_static: bool = False, is_symmetric: bool = True) -> Written:
    """compressed-tensors' of the format int-quantized: w8a8 of SmoothQuant's kind."""

    def pack(stem: str, weight: Tensor) -> tuple[Tensors, Tensor]:
        made = _groups(weight, 8, 0, is_symmetric=is_symmetric)
        tensors = {
            f"{stem}.weight": (made.codes - 128).to(torch.int8),
            f"{stem}.weight_scale": made.scales,
        }
        if not is_symmetric:
            tensors[f"{stem}.weight_zero_point"] = (made.zeros - 128).to(torch.int8)
        if is_static:
            tensors[f"{stem}.input_scale"] = torch.tensor([0.02])
            tensors[f"{stem}.input_zero_point"] = torch.tensor([3], dtype=torch.int8)
        return tensors, made.numbers

    weights = {"num_bits": 8, "strategy": "channel", "type": "int"}
    return Written(_compressed_config("int-quantized", weights), pack)


def _compressed_config(kind: str, weights: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": kind,
        "config_groups": {"group_0": {"weights": dict(weights), "targets": ["Linear"]}},
        "ignore": ["lm_head"],
    }


def four_bits_by_table(size: int = 64, *, is_nested: bool = True) -> Written:
    """bitsandbytes' nf4; `is_nested`: scales are quantised, too."""

    def pack(stem: str, weight: Tensor) -> tuple[Tensors, Tensor]:
        blocks = weight.reshape(-1, size)
        largest = blocks.abs().amax(1)
        state: dict[str, Any] = {
            "quant_type": "nf4", "blocksize": size, "dtype": "float32", "shape": [*weight.shape],
        }  # fmt: skip
        tensors: Tensors = {f"{stem}.weight.quant_map": torch.tensor(NF4)}
        tensors[f"{stem}.weight.absmax"] = largest
        if is_nested:
            offset, nested_size = float(largest.mean()), 256
            table = torch.linspace(-1, 1, 256)
            each = torch.nn.functional.pad(largest - offset, (0, -len(largest) % nested_size))
            outer = each.view(-1, nested_size).abs().amax(1)
            scaled = each.view(-1, nested_size) / outer.unsqueeze(1)
            codes = (scaled.unsqueeze(2) - table).abs().argmin(2).flatten()[: len(largest)]
            spread = outer.repeat_interleave(nested_size)[: len(largest)]
            largest = table[codes] * spread + offset
            state |= {"nested_blocksize": nested_size, "nested_offset": offset}
            tensors |= {
                f"{stem}.weight.absmax": codes.to(torch.uint8),
                f"{stem}.weight.nested_absmax": outer,
                f"{stem}.weight.nested_quant_map": table,
            }
        table = torch.tensor(NF4)
        nearest = ((blocks / largest.unsqueeze(1)).unsqueeze(2) - table).abs().argmin(2)
        pairs = nearest.view(-1, 2)
        tensors[f"{stem}.weight"] = ((pairs[:, 0] << 4) | pairs[:, 1]).to(torch.uint8).unsqueeze(1)
        text = list(json.dumps(state).encode())
        name = f"{stem}.weight.quant_state.bitsandbytes__nf4"
        tensors[name] = torch.tensor(text, dtype=torch.uint8)
        return tensors, (table[nearest] * largest.unsqueeze(1)).view(weight.shape)

    return Written({"quant_method": "bitsandbytes", "load_in_4bit": True}, pack)


def eight_bits_by_row() -> Written:
    """bitsandbytes' LLM.int8."""

    def pack(stem: str, weight: Tensor) -> tuple[Tensors, Tensor]:
        largest = weight.abs().amax(1)
        codes = (weight * 127 / largest.unsqueeze(1)).round()
        tensors = {
            f"{stem}.weight": codes.to(torch.int8),
            f"{stem}.SCB": largest,
            f"{stem}.weight_format": torch.tensor(0, dtype=torch.uint8),
        }
        return tensors, codes * largest.unsqueeze(1) / 127

    return Written({"quant_method": "bitsandbytes", "load_in_8bit": True}, pack)


def float_blocks(size: int = 64) -> Written:
    """e4m3 with a scale for each block, as DeepSeek's checkpoints have it."""

    def pack(stem: str, weight: Tensor) -> tuple[Tensors, Tensor]:
        blocks = weight.view(weight.shape[0] // size, size, weight.shape[1] // size, size)
        scales = blocks.abs().amax((1, 3)) / torch.finfo(torch.float8_e4m3fn).max
        spread = scales.repeat_interleave(size, 0).repeat_interleave(size, 1)
        data = (weight / spread).to(torch.float8_e4m3fn)
        tensors = {f"{stem}.weight": data, f"{stem}.weight_scale_inv": scales}
        return tensors, data.float() * spread

    return Written({"quant_method": "fp8", "weight_block_size": [size, size]}, pack)


def float_rows() -> Written:
    """compressed-tensors' of the format float-quantized: a scale for each row."""

    def pack(stem: str, weight: Tensor) -> tuple[Tensors, Tensor]:
        scales = weight.abs().amax(1, keepdim=True) / torch.finfo(torch.float8_e4m3fn).max
        data = (weight / scales).to(torch.float8_e4m3fn)
        return {f"{stem}.weight": data, f"{stem}.weight_scale": scales}, data.float() * scales

    weights = {"num_bits": 8, "strategy": "channel", "type": "float"}
    return Written(_compressed_config("float-quantized", weights), pack)
