"""Products of matrices that stay packed on a GPU, by Triton's kernels."""

from dataclasses import dataclass
from functools import cache

import torch
import triton
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.matrices import packed_kernels
from trivet.backends.llm.matrices.fp8 import E4M3
from trivet.backends.llm.matrices.grouped import Grouped

MOST_ROWS = 256
"""Of more, all numbers are expanded for the time of the product: to do that takes less then than
tensor cores take, and cuBLAS keeps them busier than a kernel that unpacks meanwhile."""
_BLOCKS = (128, 64, 32)
"""Inputs of a tile, the largest that fits: as many as share a scale, or a part of them."""
_BLOCK_OUTPUTS = 64
_MOST_PARTS = 8
_WHOLE, _TABLE, _E4M3 = 0, 1, 2


def why_not(matrix: Grouped) -> str:
    """Why a matrix cannot be multiplied as it lies; empty if it can."""
    if matrix.code.bits not in (4, 8):
        return f"its codes have {matrix.code.bits} bits"
    if _block_inputs(matrix) == 0:
        return f"{matrix.group_size} inputs share a scale, no multiple of {_BLOCKS[-1]}"
    if matrix.code.table and matrix.code.bits == 8 and matrix.code != E4M3:
        return "its codes of 8 bits have a table"
    return ""


def _block_inputs(matrix: Grouped) -> int:
    return next((size for size in _BLOCKS if matrix.group_size % size == 0), 0)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """How a product is cut up."""

    block_rows: int
    num_parts: int
    num_tiles: int
    """Of a part."""


class PackedProduct:
    """A Product. Holds codes as they lie, and scales by groups."""

    def __init__(self, matrix: Grouped, bias: Tensor | None = None) -> None:
        """`matrix`: one that `why_not` has nothing against."""
        self._outputs, self._inputs = matrix.shape
        self._codes = matrix.low.contiguous()
        self._scales = matrix.scales.t().contiguous()
        has_minimums = matrix.minimums is not None
        self._minimums = matrix.minimums.t().contiguous() if has_minimums else self._scales  # type: ignore[union-attr]  # so it is there
        self._order, self._bias = matrix.order, bias
        self._zero = float(matrix.code.zero)
        self._block_inputs = _block_inputs(matrix)
        kind = _E4M3 if matrix.code == E4M3 else _TABLE if matrix.code.table else _WHOLE
        self._table = self._scales
        if kind == _TABLE:
            self._table = torch.tensor(matrix.code.table, device=matrix.device)
        self._flags = {
            "BITS": matrix.code.bits, "KIND": kind, "HAS_MINIMUMS": has_minimums,
            "GROUP": matrix.group_size,
        }  # fmt: skip

    def __call__(self, rows: Tensor) -> Tensor:
        """[N, outputs]."""
        if self._order is not None:
            rows = rows.index_select(1, self._order)
        if len(rows) > MOST_ROWS:
            return functional.linear(rows, self.expanded(rows.dtype), self._bias)
        output = rows.new_empty(len(rows), self._outputs)
        if not len(rows):
            return output
        sizes = self._sizes(len(rows), rows.device)
        if sizes.num_parts == 1:
            self._multiply(rows.contiguous(), output, sizes)
            return output
        parts = rows.new_empty(sizes.num_parts, *output.shape, dtype=torch.float32)
        self._multiply(rows.contiguous(), parts, sizes)
        packed_kernels.add_parts[(triton.cdiv(output.numel(), 1024),)](
            parts, self._bias if self._bias is not None else parts, output, output.numel(),
            self._outputs, NUM_PARTS=sizes.num_parts, HAS_BIAS=self._bias is not None, BLOCK=1024,
        )  # fmt: skip
        return output

    def expanded(self, dtype: torch.dtype) -> Tensor:
        """All numbers, [outputs, inputs], in the order of places."""
        numbers = torch.empty(self._outputs, self._inputs, dtype=dtype, device=self._codes.device)
        grid = self._inputs // self._block_inputs, triton.cdiv(self._outputs, _BLOCK_OUTPUTS)
        packed_kernels.expand[grid](
            self._codes, self._scales, self._minimums, self._table, numbers, self._outputs,
            self._inputs, self._zero, BLOCK_OUTPUTS=_BLOCK_OUTPUTS,
            BLOCK_INPUTS=self._block_inputs, **self._flags,
        )  # fmt: skip
        return numbers

    def _multiply(self, rows: Tensor, output: Tensor, sizes: _Sizes) -> None:
        grid = (
            triton.cdiv(len(rows), sizes.block_rows),
            triton.cdiv(self._outputs, _BLOCK_OUTPUTS),
            sizes.num_parts,
        )
        packed_kernels.multiply[grid](
            rows, self._codes, self._scales, self._minimums, self._table,
            self._bias if self._bias is not None else rows, output,
            len(rows), self._outputs, self._inputs, sizes.num_tiles, self._zero,
            HAS_BIAS=self._bias is not None, NUM_PARTS=sizes.num_parts,
            BLOCK_ROWS=sizes.block_rows, BLOCK_OUTPUTS=_BLOCK_OUTPUTS,
            BLOCK_INPUTS=self._block_inputs, num_warps=4, num_stages=4, **self._flags,
        )  # fmt: skip

    def _sizes(self, num_rows: int, device: torch.device) -> _Sizes:
        """Parts of the inputs, where outputs alone do not keep the processors busy: twice as many
        programs as there are processors."""
        block_rows = min(max(triton.next_power_of_2(num_rows), 16), 64)
        num_tiles = self._inputs // self._block_inputs
        num_programs = triton.cdiv(num_rows, block_rows) * triton.cdiv(
            self._outputs, _BLOCK_OUTPUTS
        )
        wanted = 2 * _num_processors(device) // num_programs
        num_parts = max(min(wanted, _MOST_PARTS, num_tiles), 1)
        each = triton.cdiv(num_tiles, num_parts)
        return _Sizes(block_rows, triton.cdiv(num_tiles, each), each)


@cache
def _num_processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 4  # an interpreter's, which is to take all ways
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
