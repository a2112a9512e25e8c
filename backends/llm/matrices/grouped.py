"""Matrices of codes of few bits, of which each group along the inputs has a scale of its own: what
all formats of 2 to 8 bits become, whoever wrote the file. The compiled step multiplies them as they
lie."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import lcm
from typing import ClassVar

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.matrices.bits import CHUNK, LOW_BITS, pack_codes, unpack_codes
from trivet.backends.llm.matrices.codes import Code
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.matrix import INPUTS, Product

_BYTE = 8


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """See Matrix. A number is

        scales[output, group] * worth(code[output, place]) (+ minimums[output, group])

    where group = place // group_size, and place is where `order` has put the input."""

    name: ClassVar[str] = "grouped"
    low: Tensor
    """uint8 [outputs, bytes]: the lower bits of all codes, as `bits.py` packs them."""
    high: Tensor | None
    """uint8 [outputs, bytes]: the bits above them; None where a code is of 2, 4 or 8."""
    scales: Tensor
    """float16, bfloat16 or float32 [outputs, groups]."""
    minimums: Tensor | None
    """Of the type and shape of `scales`; None: of no group is there one."""
    code: Code
    dtype: torch.dtype
    """Of the numbers that it stands for, once they are expanded."""
    order: Tensor | None = None
    """int64 [inputs]: which input is multiplied at each place, so that a group's lie together
    (GPTQ's act-order); None: place i has input i."""

    @classmethod
    def of_codes(
        cls,
        codes: Tensor,
        scales: Tensor,
        code: Code,
        dtype: torch.dtype,
        minimums: Tensor | None = None,
        order: Tensor | None = None,
    ) -> "Grouped":
        """Packs `codes`, uint8 [outputs, inputs], which lie in the order of places."""
        low, high = pack_codes(codes, code.bits)
        return cls(low, high, scales, minimums, code, dtype, order)

    @property
    def shape(self) -> tuple[int, int]:
        """See Matrix."""
        outputs, num_bytes = self.low.shape
        return outputs, num_bytes * 8 // LOW_BITS[self.code.bits]

    @property
    def group_size(self) -> int:
        """Inputs that share a scale."""
        return self.shape[INPUTS] // self.scales.shape[1]

    @property
    def device(self) -> torch.device:
        """See Matrix."""
        return self.low.device

    @property
    def nbytes(self) -> int:
        """See Matrix."""
        tensors = self.low, self.high, self.scales, self.minimums, self.order
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def part(self, axis: int, start: int, stop: int) -> "Grouped":
        """See Matrix."""
        if axis != INPUTS:
            return self._each(lambda tensor: tensor[start:stop].contiguous())
        inputs, size = self.shape[INPUTS], self.group_size
        chunk = 1 if self.code.bits == _BYTE else CHUNK
        # A scale that all inputs share is each part's, too.
        unit = chunk if size == inputs else lcm(size, chunk)
        if start % unit or stop % unit:
            raise LoadFailed(
                f"the inputs {start} to {stop} of a matrix of {self.code.bits} bits cannot be cut "
                f"out: {unit} lie together, {size} of which share a scale (model parameter "
                "tensor_parallel_size)"
            )
        if self.order is not None and size < inputs:
            raise LoadFailed(
                f"the inputs {start} to {stop} cannot be cut out of a matrix whose groups of "
                f"{size} inputs were chosen from all {inputs} (act-order, desc_act in "
                "quantization_config; model parameter tensor_parallel_size)"
            )

        def cut(tensor: Tensor) -> Tensor:
            width = tensor.shape[1]
            if width == 1:
                return tensor
            return tensor[:, start * width // inputs : stop * width // inputs].contiguous()

        return self._each(cut)

    def reordered(self, order: Tensor) -> "Grouped":
        """See Matrix."""
        return self._each(lambda tensor: tensor[order])

    def to(self, device: torch.device) -> "Grouped":
        """See Matrix."""
        moved = self._each(lambda tensor: tensor.to(device))
        return moved if self.order is None else replace(moved, order=self.order.to(device))

    def can_join(self, other: "Grouped") -> bool:
        """Whether one matrix can hold both."""
        return (
            self.code == other.code
            and self.group_size == other.group_size
            and self.scales.dtype == other.scales.dtype
            and (self.minimums is None) == (other.minimums is None)
            and _is_same_order(self.order, other.order)
        )

    def joined(self, others: "Sequence[Grouped]") -> "Grouped":
        """See Matrix. All must be such as `can_join` says."""
        if not others:
            return self
        parts = (self, *others)
        return replace(
            self,
            low=torch.cat([part.low for part in parts]),
            high=_cat([part.high for part in parts]),
            scales=torch.cat([part.scales for part in parts]),
            minimums=_cat([part.minimums for part in parts]),
        )

    def codes(self) -> Tensor:
        """uint8 [outputs, inputs], in the order of places."""
        return unpack_codes(self.low, self.high, self.code.bits)

    def in_places(self, dtype: torch.dtype) -> Tensor:
        """Its numbers, [outputs, inputs], in the order of places."""
        codes = torch.unflatten(self.codes(), 1, (self.scales.shape[1], -1))
        if self.code.table:
            worth = _table(self.code, codes.device)[codes.int()]
        else:
            worth = codes.float().sub_(self.code.zero) if self.code.zero else codes.float()
        worth.mul_(self.scales.float().unsqueeze(2))
        if self.minimums is not None:
            worth.add_(self.minimums.float().unsqueeze(2))
        return worth.flatten(1).to(dtype)

    def expanded(self) -> Tensor:
        """See Matrix."""
        numbers = self.in_places(self.dtype)
        return numbers if self.order is None else numbers[:, self.order.argsort()]

    def product(self, bias: Tensor | None = None) -> Product:
        """See Matrix. On a GPU as it lies, where a kernel does that. Else of its numbers, expanded
        once: torch has no product of codes, and to expand them at each step takes many times as
        long as to read the numbers."""
        if self.device.type == "cuda" and (packed := _packed_product(self, bias)) is not None:
            return packed
        return Dense(self.expanded()).product(bias)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Grouped":
        """With what has a row for each output changed."""
        return replace(
            self,
            low=change(self.low),
            high=None if self.high is None else change(self.high),
            scales=change(self.scales),
            minimums=None if self.minimums is None else change(self.minimums),
        )


def _packed_product(matrix: Grouped, bias: Tensor | None) -> Product | None:
    """By kernels; None where none of them can."""
    try:
        # Triton looks for a compiler and a driver when it is imported: only where it is needed.
        from trivet.backends.llm.matrices import packed_product
    except ImportError:
        return None
    if packed_product.why_not(matrix.code, matrix.group_size):
        return None
    return packed_product.PackedProduct(
        matrix.low, matrix.scales, matrix.minimums, matrix.code, matrix.order, bias
    )


def _cat(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def _is_same_order(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


@cache
def _table(code: Code, device: torch.device) -> Tensor:
    return torch.tensor(code.table, device=device)
