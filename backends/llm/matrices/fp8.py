"""Matrices of 8-bit numbers, multiplied with rows of 8-bit numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    @classmethod
    def is_in(cls, tensors: Mapping[str, Tensor]) -> bool:
        """See Format."""
        return any(tensor.dtype == FP8 for tensor in tensors.values())

    @classmethod
    def take(cls, tensors: Mapping[str, Tensor], name: str) -> "Fp8 | None":
        """See Format. The scale is one for all or for each output."""
        if f"{name}.weight" not in tensors or tensors[f"{name}.weight"].dtype != FP8:
            return None
        data = tensors[f"{name}.weight"]
        scales = tensors.get(f"{name}.weight_scale")
        if scales is None or scales.numel() not in (1, len(data)):
            raise LoadFailed(
                f"the 8-bit weight '{name}.weight' has no scale, or not one for all or for each of "
                f"its {len(data)} rows, in '{name}.weight_scale'"
            )
        # Rows to multiply get scales of their own at each step, at least as precise as the one
        # that a checkpoint was calibrated to.
        tensors.get(f"{name}.input_scale")
        return cls(data, scales.float().flatten().expand(len(data)).contiguous())

    @classmethod
    def of(cls, matrix: Dense) -> "Fp8":
        """Each output by its own largest number."""
        data, scales = quantised_rows(matrix.data)
        return cls(data, scales[:, 0])

    @property
    def shape(self) -> tuple[int, int]:
        """See Matrix."""
        outputs, inputs = self.data.shape
        return outputs, inputs

    @property
    def nbytes(self) -> int:
        """See Matrix."""
        return self.data.nbytes + self.scales.nbytes

    def part(self, axis: int, start: int, stop: int) -> "Fp8":
        """See Matrix."""
        data = self.data.narrow(axis, start, stop - start).contiguous()
        return Fp8(data, self.scales[start:stop] if axis == OUTPUTS else self.scales)

    def reordered(self, order: Tensor) -> "Fp8":
        """See Matrix."""
        # As bytes: indexing knows no 8-bit floats everywhere.
        return Fp8(self.data.view(torch.uint8)[order].view(FP8), self.scales[order])

    def to(self, device: torch.device) -> "Fp8":
        """See Matrix."""
        return Fp8(self.data.to(device), self.scales.to(device))

    def joined(self, others: "Sequence[Fp8]") -> "Fp8":
        """See Matrix."""
        parts = (self, *others)
        return Fp8(
            torch.cat([part.data for part in parts]), torch.cat([part.scales for part in parts])
        )

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
