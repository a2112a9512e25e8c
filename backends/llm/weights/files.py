"""Reads a language model from disk: a Hugging Face folder, or one GGUF file, dequantised."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.api.content import check_readable
from trivet.backends.llm.models.config import (
    Described,
    LlmConfig,
    from_gguf,
    from_hub,
    scale_blocks,
)
from trivet.backends.llm.models.linear import FP8
from trivet.backends.llm.models.llama_weights import ROPE_DIVISORS
from trivet.backends.llm.text.tokenizer_files import TokenizerFiles, gguf_tokenizer, hub_tokenizer
from trivet.backends.llm.weights.gguf_header import GgufHeader, GgufTensor, read_header

_GGUF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GGUF_MODEL = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
# Files of other quantisations or frameworks must not be taken for weights; pickles are never read.
_INDEX = "model.safetensors.index.json"
_INVERSE = "_scale_inv"


def load_model(
    path: Path, dtype: torch.dtype
) -> tuple[LlmConfig, dict[str, Tensor], TokenizerFiles]:
    """Config, weights of one type and tokenizer. Raises LoadFailed."""
    if path.is_dir():
        described = _json(path / "config.json")
        config = from_hub(described)
        weights = _safetensors(path, dtype)
        blocks = scale_blocks(described.get("quantization_config") or {})
        if blocks is not None:
            _multiply_blocks(weights, blocks, dtype)
        return config, weights, hub_tokenizer(path)
    header = _gguf_header(path)
    metadata = _described(path, header)
    config = from_gguf(metadata, header.tensors)
    return config, _dequantised(config, header, path, dtype), gguf_tokenizer(metadata)


def load_tokenizer_files(path: Path) -> TokenizerFiles:
    """The tokenizer alone. Raises LoadFailed."""
    return (
        hub_tokenizer(path)
        if path.is_dir()
        else gguf_tokenizer(_described(path, _gguf_header(path)))
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        text = _reason(error) if isinstance(error, OSError) else type(error).__name__
        raise LoadFailed(f"'{path.name}' cannot be read as JSON: {text}") from error
    if not isinstance(document, dict):
        raise LoadFailed(f"'{path.name}' must be a JSON object")
    return document


def _safetensors(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    weights: dict[str, Tensor] = {}
    for name in _shards(folder):
        try:
            check_readable(folder / name)
            with safe_open(folder / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118  # it is no mapping
                    weights[key] = _in_type(key, file.get_tensor(key), dtype)
        except (OSError, SafetensorError) as error:
            raise LoadFailed(f"'{name}' cannot be read: {_reason(error)}") from error
    return weights


def _in_type(name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """8-bit numbers and their scales stay what they are."""
    if weight.dtype == FP8:
        return weight
    return weight.to(torch.float32 if name.endswith(("_scale", _INVERSE)) else dtype)


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
        return ["model.safetensors"]
    places = _json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise LoadFailed(f"'{_INDEX}' must have a 'weight_map' from weights to files")
    for name in places.values():
        if Path(name).name != name:
            raise LoadFailed(f"'{_INDEX}' names '{name}', which is no file of the folder")
    return sorted(set(places.values()))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        # Its own text says where the repository lies, too, which clients need not know.
        return error.strerror or type(error).__name__
    return str(error)


def _gguf_header(path: Path) -> GgufHeader:
    try:
        return read_header(path)
    except (OSError, ValueError) as error:
        raise LoadFailed(f"'{path.name}' is no readable GGUF file: {_reason(error)}") from error


def _described(path: Path, header: GgufHeader) -> Described:
    return Described(header.metadata, f"the metadata of '{path.name}'")


def _dequantised(
    config: LlmConfig, header: GgufHeader, path: Path, dtype: torch.dtype
) -> dict[str, Tensor]:
    weights = {}
    data = np.asarray(np.memmap(path, mode="r"))
    for name, tensor in header.tensors.items():
        weight = _floats(name, tensor, data)
        if config.architecture == "llama" and ".attn_q." in name:
            weight = _unpermuted(weight, config.num_heads)
        elif config.architecture == "llama" and ".attn_k." in name:
            weight = _unpermuted(weight, config.num_kv_heads)
        # Divisors of rotary frequencies: rounding them would turn far positions the wrong way.
        weights[_hub_name(name)] = weight if name == ROPE_DIVISORS else weight.to(dtype)
    return weights


def _floats(name: str, tensor: GgufTensor, data: np.ndarray) -> Tensor:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(tensor.kind)
    rows = data[tensor.start : tensor.start + tensor.size_bytes].reshape(tensor.shape)
    try:
        return torch.from_numpy(dequantize(rows, kind).copy())
    except NotImplementedError as error:
        raise LoadFailed(f"tensor '{name}' is of type {kind.name}, which cannot be read") from error


def _hub_name(name: str) -> str:
    """Hugging Face's name of a GGUF tensor; its own when there is none, for the model to judge."""
    parts = name.split(".")
    if parts[0] == "blk" and parts[2] in _GGUF_LAYER:
        return f"model.layers.{parts[1]}.{_GGUF_LAYER[parts[2]]}.{parts[3]}"
    if parts[0] in _GGUF_MODEL:
        return f"{_GGUF_MODEL[parts[0]]}.{parts[1]}"
    return name


def _unpermuted(weight: Tensor, num_heads: int) -> Tensor:
    """Undoes what GGUF converters do to Llama's queries and keys: they interleave the two halves
    of each head, for a rotation of neighbours instead of halves."""
    rows = weight.shape[0] // num_heads
    shape = (num_heads, rows // 2, 2, *weight.shape[1:])
    return weight.reshape(shape).transpose(1, 2).reshape(weight.shape)
