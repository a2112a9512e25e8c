"""Matrices of whole numbers: float32, float16 or bfloat16."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.matrices.matrix import Product


@dataclass(frozen=True, slots=True)
class Dense:
    """See Matrix."""

    name: ClassVar[str] = "dense"
    data: Tensor
    """[outputs, inputs]."""

    @property
    def shape(self) -> tuple[int, int]:
        """See Matrix."""
        outputs, inputs = self.data.shape
        return outputs, inputs

    @property
    def dtype(self) -> torch.dtype:
        """See Matrix."""
        return self.data.dtype

    @property
    def device(self) -> torch.device:
        """See Matrix."""
        return self.data.device

    @property
    def nbytes(self) -> int:
        """See Matrix."""
        return self.data.nbytes

    def part(self, axis: int, start: int, stop: int) -> "Dense":
        """See Matrix."""
        return Dense(self.data.narrow(axis, start, stop - start).contiguous())

    def reordered(self, order: Tensor) -> "Dense":
        """See Matrix."""
        return Dense(self.data[order])

    def to(self, device: torch.device) -> "Dense":
        """See Matrix."""
        return Dense(self.data.to(device))

    def can_join(self, other: "Dense") -> bool:  # noqa: ARG002  # all are alike
        """See Matrix."""
        return True

    def joined(self, others: "Sequence[Dense]") -> "Dense":
        """See Matrix."""
        return Dense(torch.cat([self.data, *(other.data for other in others)])) if others else self

    def expanded(self) -> Tensor:
        """See Matrix."""
        return self.data

    def product(self, bias: Tensor | None = None) -> Product:
        """See Matrix. oneDNN multiplies bfloat16 in blocks, into which `functional.linear` brings
        the weights at each call: for few rows that takes as long as the product. Here they are
        brought there once."""
        data = self.data
        if data.dtype == torch.bfloat16 and data.device.type == "cpu" and _has_packing():
            packed = torch.ops.mkldnn._reorder_linear_weight(data)  # noqa: SLF001  # no public form
            pointwise = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001
            return lambda rows: pointwise(rows, packed, bias, "none", [], "")
        return lambda rows: functional.linear(rows, data, bias)


def _has_packing() -> bool:
    """Whether oneDNN takes bfloat16 on this processor, which without AVX-512 it refuses."""
    is_built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    ops = torch.ops.mkldnn
    return (
        is_built
        and hasattr(ops, "_reorder_linear_weight")
        and bool(ops._is_mkldnn_bf16_supported())  # noqa: SLF001  # no public form
    )
