"""Reads a language model from disk: a Hugging Face folder, or GGUF, dequantised."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.api.content import check_readable
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.names import Role, WeightName
from trivet.backends.llm.families.quantisation import scale_blocks
from trivet.backends.llm.families.registry import FAMILIES, from_gguf, from_hub
from trivet.backends.llm.matrices.fp8 import FP8
from trivet.backends.llm.text.gguf_tokenizer import gguf_tokenizer
from trivet.backends.llm.text.tokenizer_files import TokenizerFiles, hub_tokenizer
from trivet.backends.llm.weights.gguf_header import GgufTensor
from trivet.backends.llm.weights.gguf_parts import GgufModel, read_model
from trivet.backends.llm.weights.latents import join_latents
from trivet.backends.llm.weights.rows import computed_order
from trivet.backends.llm.weights.stacked import is_packed, unstack

# Files of other quantisations or frameworks must not be taken for weights; pickles are never read.
_INDEX = "model.safetensors.index.json"
_ONLY_SHARD = "model.safetensors"
_OTHER_WEIGHTS = {
    ".bin": "a pickle, which could run code: save it as safetensors",
    ".pt": "a pickle, which could run code: save it as safetensors",
    ".pth": "a pickle, which could run code: save it as safetensors",
    ".h5": "weights of TensorFlow: save them as safetensors",
    ".msgpack": "weights of Flax: save them as safetensors",
    ".safetensors": f"whose name says nothing: call it '{_ONLY_SHARD}', or give it an '{_INDEX}'",
}
"""What may lie there instead, by ending, and what to do about it."""
_INVERSE = "_scale_inv"
_CORRECTION = ".e_score_correction_bias"
_LAYER = re.compile(r"[0-9]{1,5}")


def load_model(
    path: Path, dtype: torch.dtype, families: Sequence[Family] = FAMILIES
) -> tuple[LlmConfig, dict[str, Tensor], TokenizerFiles]:
    """Config, weights of one type by Hugging Face's names, and tokenizer; of one of the families.
    Raises LoadFailed."""
    if path.is_dir():
        described = read_json(path / "config.json")
        config = from_hub(described, families)
        weights = read_safetensors(path, dtype)
        blocks = scale_blocks(described.get("quantization_config") or {})
        if blocks is not None:
            _multiply_blocks(weights, blocks, dtype)
        unstack(weights, config, dtype)
        return config, weights, hub_tokenizer(path)
    model = read_model(path)
    metadata = _described(path, model)
    config = from_gguf(metadata, model.tensors, families)
    weights = _dequantised(config, model, dtype)
    join_latents(weights, config)
    return config, weights, gguf_tokenizer(metadata)


def read_config(path: Path, families: Sequence[Family] = FAMILIES) -> LlmConfig:
    """The config alone; that the files with the weights are there is looked at, too. Raises
    LoadFailed."""
    if path.is_dir():
        config = from_hub(read_json(path / "config.json"), families)
        _shards(path)
        return config
    model = read_model(path)
    return from_gguf(_described(path, model), model.tensors, families)


def load_tokenizer_files(path: Path) -> TokenizerFiles:
    """The tokenizer alone. Raises LoadFailed."""
    return (
        hub_tokenizer(path) if path.is_dir() else gguf_tokenizer(_described(path, read_model(path)))
    )


def read_json(path: Path) -> dict[str, Any]:
    """A file's object. Raises LoadFailed."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        text = _reason(error) if isinstance(error, OSError) else type(error).__name__
        raise LoadFailed(f"'{path.name}' cannot be read as JSON: {text}") from error
    if not isinstance(document, dict):
        raise LoadFailed(f"'{path.name}' must be a JSON object")
    return document


def read_safetensors(folder: Path, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """A folder's weights by name, in one type, or in the file's own. Raises LoadFailed."""
    from safetensors import SafetensorError, safe_open

    weights: dict[str, Tensor] = {}
    for name in _shards(folder):
        try:
            check_readable(folder / name)
            with safe_open(folder / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118  # it is no mapping
                    tensor = file.get_tensor(key)
                    weights[key] = tensor if dtype is None else _in_type(key, tensor, dtype)
        except (OSError, SafetensorError) as error:
            raise LoadFailed(f"'{name}' cannot be read: {_reason(error)}") from error
    return weights


def _in_type(name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """8-bit numbers and their scales stay what they are, and so do corrections of a router's
    scores, which differ little."""
    if weight.dtype == FP8 or is_packed(name):
        return weight
    is_kept = name.endswith(("_scale", _INVERSE, _CORRECTION))
    return weight.to(torch.float32 if is_kept else dtype)


def _multiply_blocks(
    weights: dict[str, Tensor], blocks: tuple[int, int], dtype: torch.dtype
) -> None:
    """Brings 8-bit matrices whose blocks have scales into `dtype`: they are multiplied in 8 bits
    with scales of their rows only, which quantising at load gives them. Raises LoadFailed.

    A scale is what its block is times, also where the file calls it inverse (DeepSeek-V3 technical
    report, 3.3).
    """
    for name, matrix in weights.items():
        if matrix.dtype != FP8 or matrix.dim() != len(blocks):
            continue
        wanted = tuple(-(-size // block) for size, block in zip(matrix.shape, blocks, strict=True))
        # One name or the other: who wrote the file decides.
        scale_name = name + (_INVERSE if name + _INVERSE in weights else "_scale")
        scales = weights.get(scale_name)
        if scales is None or tuple(scales.shape) != wanted:
            raise LoadFailed(
                f"the 8-bit weight '{name}' of shape {list(matrix.shape)} needs scales of shape "
                f"{list(wanted)}, for blocks of {list(blocks)}, in '{name}{_INVERSE}' or "
                f"'{name}_scale'; "
                + ("there is neither" if scales is None else f"got {list(scales.shape)}")
            )
        rows, columns = matrix.shape
        spread = scales.repeat_interleave(blocks[0], 0)[:rows].repeat_interleave(blocks[1], 1)
        weights[name] = matrix.float().mul_(spread[:, :columns]).to(dtype)
    for name in [name for name in weights if _is_scale_of_whole(name, weights)]:
        del weights[name]


def _is_scale_of_whole(name: str, weights: Mapping[str, Tensor]) -> bool:
    """Whether it is what an 8-bit matrix, or what it multiplies, was times."""
    layer, _, kind = name.rpartition(".")
    is_scale = kind in ("weight_scale", "weight" + _INVERSE, "input_scale")
    matrix = weights.get(f"{layer}.weight")
    return is_scale and matrix is not None and matrix.dtype != FP8


def _shards(folder: Path) -> list[str]:
    index = folder / _INDEX
    if not index.exists():
        _refuse_other_weights(folder)
        return [_ONLY_SHARD]
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise LoadFailed(f"'{_INDEX}' must have a 'weight_map' from weights to files")
    for name in places.values():
        if Path(name).name != name:
            raise LoadFailed(f"'{_INDEX}' names '{name}', which is no file of the folder")
    return sorted(set(places.values()))


def _refuse_other_weights(folder: Path) -> None:
    """Raises LoadFailed that names what lies there instead of weights that can be read."""
    if (folder / _ONLY_SHARD).exists():
        return
    for ending, advice in reversed(_OTHER_WEIGHTS.items()):
        found = sorted(path.name for path in folder.glob(f"*{ending}"))
        if found:
            raise LoadFailed(
                f"'{_ONLY_SHARD}' cannot be read: there is none, but '{found[0]}', {advice}"
            )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        # Its own text says where the repository lies, too, which clients need not know.
        return error.strerror or type(error).__name__
    return str(error)


def _described(path: Path, model: GgufModel) -> Described:
    return Described(model.metadata, f"the metadata of '{path.name}'")


def gguf_values(model: GgufModel) -> Iterator[tuple[str, np.ndarray]]:
    """Names and numbers of a model's tensors, one after the other. Raises LoadFailed."""
    for file in model.files:
        data = np.asarray(np.memmap(file.path, mode="r"))
        for name, tensor in file.header.tensors.items():
            yield name, _floats(name, tensor, data)


def _dequantised(config: LlmConfig, model: GgufModel, dtype: torch.dtype) -> dict[str, Tensor]:
    weights = {}
    for gguf_name, values in gguf_values(model):
        weight = torch.from_numpy(values.copy())
        name = _GgufName.parsed(gguf_name, config)
        # Divisors of rotary frequencies: rounding them would turn far positions the wrong way.
        is_correction = name.weight is not None and Role.CORRECTION in name.weight.roles
        kept = gguf_name == config.names.rope_divisors or is_correction
        for hub_name, part in _as_in_hub(weight, name, config):
            weights[hub_name] = part if kept else part.to(dtype)
    return weights


@dataclass(frozen=True, slots=True)
class _GgufName:
    """A tensor's name in a GGUF file, and which weight of its family it is."""

    name: str
    weight: WeightName | None
    """None: the family has none of that name, which the model will judge."""
    layer: int
    ending: str

    @classmethod
    def parsed(cls, name: str, config: LlmConfig) -> "_GgufName":
        """Of `blk.LAYER.STEM.ENDING` or `STEM.ENDING`."""
        stem, _, ending = name.rpartition(".")
        layer, parts = 0, stem.split(".", 2)
        if parts[0] == "blk" and len(parts) > 2 and _LAYER.fullmatch(parts[1]):
            layer, stem = int(parts[1]), f"blk.{{layer}}.{parts[2]}"
        weight = config.names.of_gguf(stem) if layer < config.num_layers else None
        return cls(name, weight, layer, ending)

    def in_hub(self, expert: int = 0) -> str:
        """Hugging Face's name; its own where there is none."""
        if self.weight is None:
            return self.name
        return self.weight.whole_in_hub(self.ending, self.layer, expert)


def _as_in_hub(tensor: Tensor, name: _GgufName, config: LlmConfig) -> Iterator[tuple[str, Tensor]]:
    """As Hugging Face's files have it, where each expert has a weight of its own."""
    weight = name.weight
    if weight is None:
        yield name.in_hub(), tensor
        return
    if weight.is_of_experts:
        yield from ((name.in_hub(expert), part) for expert, part in enumerate(tensor))
        return
    attention = config.layers[name.layer].attention
    if weight.gguf_interleaves:
        is_query = Role.QUERY in weight.roles
        tensor = _unpermuted(tensor, attention.num_heads if is_query else attention.num_kv_heads)
    if weight.groups_heads:
        order = computed_order(weight, attention)
        assert order is not None
        tensor = tensor[order.argsort()]
    if weight.gguf_offset and name.ending == "weight":
        tensor = tensor - weight.gguf_offset
    is_turned = weight.is_transposed and tensor.dim() > 1
    yield name.in_hub(), tensor.t() if is_turned else tensor


def _floats(name: str, tensor: GgufTensor, data: np.ndarray) -> np.ndarray:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(tensor.kind)
    rows = data[tensor.start : tensor.start + tensor.size_bytes].reshape(tensor.shape)
    try:
        return dequantize(rows, kind)
    except NotImplementedError as error:
        raise LoadFailed(f"tensor '{name}' is of type {kind.name}, which cannot be read") from error


def _unpermuted(weight: Tensor, num_heads: int) -> Tensor:
    """Undoes what GGUF converters do to Llama's queries and keys: they interleave the two halves
    of each head, for a rotation of neighbours instead of halves."""
    rows = weight.shape[0] // num_heads
    shape = (num_heads, rows // 2, 2, *weight.shape[1:])
    return weight.reshape(shape).transpose(1, 2).reshape(weight.shape)
