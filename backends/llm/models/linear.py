"""Linear layers in the layout that the processor multiplies best."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Linear = Callable[[Tensor], Tensor]
"""[N, depth] to [N, columns]."""


def linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """A layer with `weight`, [columns, depth].

    oneDNN multiplies bfloat16 in blocks, into which `functional.linear` brings the weights at each
    call: for few rows that takes as long as the product. Here they are brought there once.
    """
    if weight.dtype == torch.bfloat16 and not weight.is_cuda and _has_packing():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)  # noqa: SLF001  # no public form
        multiply = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001
        return lambda rows: multiply(rows, packed, bias, "none", [], "")
    return lambda rows: functional.linear(rows, weight, bias)


def _has_packing() -> bool:
    is_built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return is_built and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
