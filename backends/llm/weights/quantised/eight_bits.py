"""Numbers of 8 bits: e4m3 with scales of matrices, rows or blocks, and whole numbers with scales of
matrices, rows or groups."""

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.matrices.codes import E4M3, Code
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.fp8 import FP8, Fp8
from trivet.backends.llm.matrices.grouped import Grouped
from trivet.backends.llm.matrices.matrix import Matrix
from trivet.backends.llm.weights.quantised.source import (
    Source,
    check_groups,
    check_scales,
    check_shape,
)

_INVERSE = "_scale_inv"
_OF_INPUTS = ("input_scale", "input_zero_point", "activation_scale", "input_global_scale")
"""Rows to multiply get scales of their own at each step, at least as precise as those that a
checkpoint was calibrated to."""


def read_fp8(source: Source, blocks: tuple[int, int] | None) -> None:
    """All matrices of e4m3 numbers. Raises LoadFailed."""
    for stem in source.stems(".weight"):
        data = source.get(f"{stem}.weight")
        if data is not None and data.dtype == FP8:
            source.put(stem, _fp8(source, stem, data, blocks))
            forget_inputs(source, stem)


def forget_inputs(source: Source, stem: str) -> None:
    """What a checkpoint says of the rows that a matrix will be multiplied with."""
    for kind in _OF_INPUTS:
        source.take(f"{stem}.{kind}")


def _fp8(source: Source, stem: str, data: Tensor, blocks: tuple[int, int] | None) -> Matrix:
    name = f"{stem}.weight"
    # One name or the other: who wrote the file decides.
    scales = source.take(name + _INVERSE)
    scales = source.take(f"{name}_scale") if scales is None else scales
    if blocks is not None and data.dim() == len(blocks):
        return _of_blocks(source, name, data, scales, blocks)
    if scales is None or scales.numel() not in (1, len(data)):
        raise LoadFailed(
            f"the 8-bit weight '{name}' has no scale, or not one for all or for each of its "
            f"{len(data)} rows, in '{name}_scale'"
        )
    return Fp8(data, scales.float().flatten().expand(len(data)).contiguous(), source.dtype)


def _of_blocks(
    source: Source, name: str, data: Tensor, scales: Tensor | None, blocks: tuple[int, int]
) -> Matrix:
    """A scale is what its block is times, also where the file calls it inverse (DeepSeek-V3
    technical report, 3.3)."""
    wanted = tuple(-(-size // block) for size, block in zip(data.shape, blocks, strict=True))
    if scales is None or tuple(scales.shape) != wanted:
        raise LoadFailed(
            f"the 8-bit weight '{name}' of shape {list(data.shape)} needs scales of shape "
            f"{list(wanted)}, for blocks of {list(blocks)}, in '{name}{_INVERSE}' or "
            f"'{name}_scale'; "
            + ("there is neither" if scales is None else f"got {list(scales.shape)}")
        )
    rows, columns = data.shape
    by_row = scales.float().repeat_interleave(blocks[0], 0)[:rows].contiguous()
    if columns % blocks[1] == 0:
        return Grouped(data.view(torch.uint8), None, by_row, None, E4M3, source.dtype)
    # The last block of each row is shorter than the others.
    spread = by_row.repeat_interleave(blocks[1], 1)[:, :columns]
    return Dense(data.float().mul_(spread).to(source.dtype))


def read_int8(source: Source, stem: str) -> None:
    """A matrix of whole numbers, `X.weight`, with `X.weight_scale`. Raises LoadFailed."""
    name = f"{stem}.weight"
    data = source.need_matrix(name, name)
    scales = check_scales(f"{name}_scale", source.need(f"{name}_scale", name))
    rows, columns = data.shape
    scales = _by_row(f"{name}_scale", scales, rows)
    if scales.shape[1] > 1:
        check_groups(name, columns, scales.shape[1])
    zeros, minimums = source.take(f"{name}_zero_point"), None
    if zeros is not None and zeros.any():
        zeros = _by_row(f"{name}_zero_point", zeros, rows)
        check_shape(f"{name}_zero_point", zeros, tuple(scales.shape), f"'{name}_scale'")
        minimums = (-zeros.float() * scales.float()).to(scales.dtype)
    source.put(stem, int8_matrix(data, scales, source.dtype, minimums))
    forget_inputs(source, stem)


def int8_matrix(
    data: Tensor, scales: Tensor, dtype: torch.dtype, minimums: Tensor | None = None
) -> Grouped:
    """`data`: int8 [outputs, inputs]; `scales` and `minimums`: [outputs, groups]."""
    codes = data.contiguous().view(torch.uint8) ^ 128
    return Grouped(codes, None, scales, minimums, Code(8, 128), dtype)


def _by_row(name: str, given: Tensor, rows: int) -> Tensor:
    """[rows, groups]. Raises LoadFailed."""
    if given.numel() == 1:
        return given.reshape(1, 1).expand(rows, 1).contiguous()
    given = given.reshape(len(given), -1)
    if len(given) != rows:
        raise LoadFailed(
            f"weight '{name}' is of shape {list(given.shape)}; a matrix of {rows} rows needs one "
            "number, or one or more for each row"
        )
    return given
