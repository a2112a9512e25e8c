"""Products of matrices that stay packed on a GPU, by Triton's kernels."""

from dataclasses import dataclass
from functools import cache

import torch
import triton
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.matrices import packed_kernels
from trivet.backends.llm.matrices.codes import E4M3, Code

MOST_ROWS = 256
"""Of more, all numbers are expanded for the time of the product: to do that takes less then than
tensor cores take, and cuBLAS keeps them busier than a kernel that unpacks meanwhile."""
_BLOCKS = (128, 64, 32)
"""Inputs of a tile, the largest that fits: as many as share a scale, or a part of them."""
_BLOCK_OUTPUTS = 64
_MOST_PARTS = 8
_WHOLE, _TABLE, _E4M3 = 0, 1, 2


def why_not(code: Code, group_size: int) -> str:
    """Why a matrix of such codes cannot be multiplied as it lies; empty if it can."""
    if code.bits not in (4, 8):
        return f"its codes have {code.bits} bits"
    if _block_inputs(group_size) == 0:
        return f"{group_size} inputs share a scale, no multiple of {_BLOCKS[-1]}"
    if code.table and code.bits == 8 and code != E4M3:
        return "its codes of 8 bits have a table"
    return ""


def _block_inputs(group_size: int) -> int:
    return next((size for size in _BLOCKS if group_size % size == 0), 0)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """How a product is cut up."""

    block_rows: int
    num_parts: int
    num_tiles: int
    """Of a part."""


class PackedProduct:
    """A Product. Holds codes as they lie, and scales by groups."""

    def __init__(
        self,
        codes: Tensor,
        scales: Tensor,
        minimums: Tensor | None,
        code: Code,
        order: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> None:
        """Of what a Grouped holds that `why_not` has nothing against."""
        self._outputs, num_bytes = codes.shape
        self._inputs = num_bytes * 8 // code.bits
        self._codes = codes.contiguous()
        self._scales = scales.t().contiguous()
        self._minimums = self._scales if minimums is None else minimums.t().contiguous()
        self._order, self._bias = order, bias
        self._zero = float(code.zero)
        group_size = self._inputs // scales.shape[1]
        self._block_inputs = _block_inputs(group_size)
        kind = _E4M3 if code == E4M3 else _TABLE if code.table else _WHOLE
        self._table = self._scales
        if kind == _TABLE:
            self._table = torch.tensor(code.table, device=codes.device)
        self._flags = {
            "BITS": code.bits, "KIND": kind, "HAS_MINIMUMS": minimums is not None,
            "GROUP": group_size,
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
