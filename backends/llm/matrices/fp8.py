"""Matrices of 8-bit numbers, multiplied with rows of 8-bit numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.matrix import OUTPUTS

FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max
FP8_MULTIPLE = 16
"""Inputs and outputs of an 8-bit product are multiples of that."""


@dataclass(frozen=True, slots=True)
class Fp8:
    """See Matrix."""

    name: ClassVar[str] = "fp8"
    data: Tensor
    """float8_e4m3fn [outputs, inputs]."""
    scales: Tensor
    """float32 [outputs]: what each output's numbers are times."""
    dtype: torch.dtype
    """Of the numbers that it stands for, once they are expanded."""

    @classmethod
    def of(cls, matrix: Dense) -> "Fp8":
        """Each output by its own largest number."""
        data, scales = quantised_rows(matrix.data)
        return cls(data, scales[:, 0], matrix.data.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """See Matrix."""
        outputs, inputs = self.data.shape
        return outputs, inputs

    @property
    def device(self) -> torch.device:
        """See Matrix."""
        return self.data.device

    @property
    def nbytes(self) -> int:
        """See Matrix."""
        return self.data.nbytes + self.scales.nbytes

    def part(self, axis: int, start: int, stop: int) -> "Fp8":
        """See Matrix."""
        data = self.data.narrow(axis, start, stop - start).contiguous()
        scales = self.scales[start:stop] if axis == OUTPUTS else self.scales
        return replace(self, data=data, scales=scales)

    def reordered(self, order: Tensor) -> "Fp8":
        """See Matrix."""
        # As bytes: indexing knows no 8-bit floats everywhere.
        data = self.data.view(torch.uint8)[order].view(FP8)
        return replace(self, data=data, scales=self.scales[order])

    def to(self, device: torch.device) -> "Fp8":
        """See Matrix."""
        return replace(self, data=self.data.to(device), scales=self.scales.to(device))

    def can_join(self, other: "Fp8") -> bool:  # noqa: ARG002  # all are alike
        """See Matrix."""
        return True

    def joined(self, others: "Sequence[Fp8]") -> "Fp8":
        """See Matrix."""
        parts = (self, *others)
        return replace(
            self,
            data=torch.cat([part.data for part in parts]),
            scales=torch.cat([part.scales for part in parts]),
        )

    def expanded(self) -> Tensor:
        """See Matrix."""
        return (self.data.float() * self.scales.float().unsqueeze(1)).to(self.dtype)

    def product(self, bias: Tensor | None = None) -> "Fp8Product":
        """See Matrix."""
        return Fp8Product(self, bias)


def quantised_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """8-bit numbers, and what they are times, by each row's largest: float32 [rows, 1]."""
    exact = rows.float()
    scales = exact.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / FP8_MAX
    return (exact / scales).clamp(-FP8_MAX, FP8_MAX).to(FP8), scales


class Fp8Product:
    """A product of 8-bit numbers, summed in float32."""

    def __init__(self, matrix: Fp8, bias: Tensor | None = None) -> None:
        """Raises LoadFailed for a shape that cannot be multiplied."""
        outputs, inputs = matrix.shape
        if outputs % FP8_MULTIPLE or inputs % FP8_MULTIPLE:
            raise LoadFailed(
                f"a weight of shape [{outputs}, {inputs}] cannot be multiplied in 8 bits: both "
                f"must be multiples of {FP8_MULTIPLE} (model parameter quantization)"
            )
        self._data = matrix.data.t()
        self._scales = matrix.scales.float().unsqueeze(0).contiguous()
        self._bias = bias

    def __call__(self, rows: Tensor) -> Tensor:
        """Of rows of whole numbers, [N, inputs]."""
        return self.of_quantised(*quantised_rows(rows), rows.dtype)

    def of_quantised(self, rows: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        """Of 8-bit `rows` times `scales`, [N, 1], which somebody has made already."""
        # Its rows' scales are given in bfloat16 only.
        product = torch._scaled_mm(  # noqa: SLF001  # no public form yet
            rows, self._data, scale_a=scales, scale_b=self._scales, out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )  # fmt: skip
        if self._bias is not None:
            product = product + self._bias
        return product.to(dtype)
