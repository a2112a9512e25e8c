"""Linear layers in the layout that the device multiplies best, of whole or of 8-bit numbers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.api import LoadFailed

Linear = Callable[[Tensor], Tensor]
"""[N, depth] to [N, columns]."""
FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max
FP8_MULTIPLE = 16
"""Depth and columns of an 8-bit product are multiples of that."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix [columns, depth]; of 8-bit numbers if it has scales."""

    data: Tensor
    scales: Tensor | None = None
    """float32 [columns]: what each row is times."""

    @classmethod
    def joined(cls, parts: "list[Weight]") -> "Weight":
        """One above the other."""
        data = torch.cat([part.data for part in parts])
        scales = [part.scales for part in parts if part.scales is not None]
        return cls(data, torch.cat(scales) if scales else None)

    def quantised(self) -> "Weight":
        """In 8 bits, each row by its own largest number."""
        if self.scales is not None:
            return self
        data, scales = quantised_rows(self.data)
        return Weight(data, scales[:, 0])


def quantised_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """8-bit numbers, and what they are times, by each row's largest: float32 [rows, 1]."""
    exact = rows.float()
    scales = exact.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / FP8_MAX
    return (exact / scales).clamp(-FP8_MAX, FP8_MAX).to(FP8), scales


def linear(weight: Weight, bias: Tensor | None = None) -> Linear:
    """A layer. oneDNN multiplies bfloat16 in blocks, into which `functional.linear` brings the
    weights at each call: for few rows that takes as long as the product. Here they are brought
    there once.
    """
    if weight.scales is not None:
        multiply = EightBitLinear(weight, bias)
        return lambda rows: multiply(*quantised_rows(rows), rows.dtype)
    data = weight.data
    if data.dtype == torch.bfloat16 and data.device.type == "cpu" and _has_packing():
        packed = torch.ops.mkldnn._reorder_linear_weight(data)  # noqa: SLF001  # no public form
        pointwise = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001
        return lambda rows: pointwise(rows, packed, bias, "none", [], "")
    return lambda rows: functional.linear(rows, data, bias)


class EightBitLinear:
    """A product of 8-bit numbers, summed in float32."""

    def __init__(self, weight: Weight, bias: Tensor | None = None) -> None:
        """Raises LoadFailed for a shape that cannot be multiplied."""
        columns, depth = weight.data.shape
        if columns % FP8_MULTIPLE or depth % FP8_MULTIPLE:
            raise LoadFailed(
                f"a weight of shape [{columns}, {depth}] cannot be multiplied in 8 bits: both must "
                f"be multiples of {FP8_MULTIPLE} (model parameter quantization)"
            )
        assert weight.scales is not None
        self._data = weight.data.t()
        self._scales = weight.scales.float().unsqueeze(0).contiguous()
        self._bias = bias

    def __call__(self, rows: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        """`rows` times `scales`, [N, 1], times the weight."""
        # Its rows' scales are given in bfloat16 only.
        product = torch._scaled_mm(  # noqa: SLF001  # no public form yet
            rows, self._data, scale_a=scales, scale_b=self._scales, out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )  # fmt: skip
        if self._bias is not None:
            product = product + self._bias
        return product.to(dtype)


def _has_packing() -> bool:
    is_built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return is_built and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
