"""bitsandbytes' files: 4 bits by a table for blocks of a matrix, or 8 with a scale for each row."""

import json
from typing import Any

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.matrices.codes import Code
from trivet.backends.llm.matrices.grouped import Grouped
from trivet.backends.llm.weights.quantised.eight_bits import int8_matrix
from trivet.backends.llm.weights.quantised.source import Source, check_groups, check_shape

_STATES = ("nf4", "fp4")
_LARGEST = 127
"""Of a whole number of 8 bits."""


def read_bitsandbytes(source: Source) -> None:
    """All matrices of a folder. Raises LoadFailed."""
    for kind in _STATES:
        for stem in source.stems(f".weight.quant_state.bitsandbytes__{kind}"):
            source.put(stem, _four_bits(source, stem, kind))
    for stem in source.stems(".SCB"):
        source.put(stem, _eight_bits(source, stem))


def _eight_bits(source: Source, stem: str) -> Grouped:
    name = f"{stem}.weight"
    data, largest = source.need_matrix(name, f"{stem}.SCB"), source.need(f"{stem}.SCB", name)
    source.take(f"{stem}.weight_format")
    check_shape(f"{stem}.SCB", largest, (len(data),), f"'{name}'")
    scales = (largest.float() / _LARGEST).unsqueeze(1)
    return int8_matrix(data, scales, source.dtype)


def _four_bits(source: Source, stem: str, kind: str) -> Grouped:
    name = f"{stem}.weight"
    state_name = f"{name}.quant_state.bitsandbytes__{kind}"
    state = _state(state_name, source.need(state_name, name))
    packed = source.need(name, state_name).flatten()
    table = tuple(source.need(f"{name}.quant_map", name).float().tolist())
    shape, size = state.get("shape"), state.get("blocksize")
    if (
        not isinstance(shape, list) or len(shape) != len(("outputs", "inputs"))
        or not all(isinstance(each, int) and each > 0 for each in shape)
        or not isinstance(size, int) or size < 1
        or len(table) != 1 << 4
    ):  # fmt: skip
        raise LoadFailed(
            f"weight '{state_name}' has shape {shape} and blocksize {size}, with a table of "
            f"{len(table)} numbers; it must be a matrix, in blocks, with one of 16"
        )
    outputs, inputs = shape
    check_shape(name, packed, (outputs * inputs // 2,), f"a matrix {shape} of 4 bits")
    # Blocks are cut out of the matrix as one row: those that reach into the next are none of ours.
    check_groups(name, inputs, inputs // size, size)
    largest = _largest(source, name, state)
    why = f"a matrix {shape} in blocks of {size}"
    check_shape(f"{name}.absmax", largest, (outputs * inputs // size,), why)
    # The first of two is in the upper bits.
    codes = torch.stack((packed >> 4, packed & 15), dim=-1).view(outputs, inputs)
    largest = largest.view(outputs, -1)
    return Grouped.of_codes(codes, largest, Code(4, table=table), source.dtype)


def _state(name: str, packed: Tensor) -> dict[str, Any]:
    try:
        state = json.loads(bytes(packed.to(torch.uint8).tolist()))
    except ValueError as error:
        raise LoadFailed(f"weight '{name}' is no JSON, which tells how it is packed") from error
    if not isinstance(state, dict):
        raise LoadFailed(f"weight '{name}' is no JSON object, which tells how it is packed")
    return state


def _largest(source: Source, name: str, state: dict[str, Any]) -> Tensor:
    """What each block's numbers are times, float32: it may be quantised itself."""
    codes = source.need(f"{name}.absmax", name)
    nested = source.take(f"{name}.nested_absmax")
    if nested is None:
        return codes.float()
    table = source.need(f"{name}.nested_quant_map", name).float()
    size, offset = state.get("nested_blocksize"), state.get("nested_offset")
    if not isinstance(size, int) or size < 1 or not isinstance(offset, float | int):
        raise LoadFailed(
            f"weight '{name}' has nested_blocksize {size} and nested_offset {offset}, which must "
            "be numbers"
        )
    if len(table) != 1 << 8 or len(nested) * size < codes.numel():
        raise LoadFailed(
            f"weight '{name}' has {codes.numel()} scales in {len(nested)} blocks of {size}, with a "
            f"table of {len(table)} numbers; it must be one of 256, and blocks enough"
        )
    scales = nested.float().repeat_interleave(size)[: codes.numel()]
    return table[codes.flatten().int()] * scales + float(offset)
