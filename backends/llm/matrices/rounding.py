"""Dense matrices rounded to 8 or 4 bits at load."""

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.matrices.codes import Code
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.grouped import Grouped

GROUP = 32
"""Inputs that share a scale of 4-bit codes."""
_BYTE, _LARGEST_OF_8 = Code(8, 128), 127
_NIBBLE, _LARGEST_OF_4 = Code(4), 15
_LEAST = 1e-12
"""A row of zeros is scaled by something."""


def rounded_to_8(matrix: Dense) -> Grouped:
    """Each output by its own largest number."""
    exact = matrix.data.float()
    scales = exact.abs().amax(dim=1, keepdim=True).clamp_min(_LEAST) / _LARGEST_OF_8
    codes = (exact / scales).round_() + _BYTE.zero
    return Grouped.of_codes(codes.to(torch.uint8), scales, _BYTE, matrix.dtype)


def rounded_to_4(matrix: Dense) -> Grouped:
    """Each group of inputs from its own smallest to its own largest number. Raises LoadFailed for
    inputs of no whole groups."""
    outputs, inputs = matrix.shape
    if inputs % GROUP:
        raise LoadFailed(
            f"a weight of shape [{outputs}, {inputs}] cannot be rounded to 4 bits: its inputs must "
            f"be a multiple of {GROUP} (model parameter quantization)"
        )
    exact = torch.unflatten(matrix.data.float(), 1, (-1, GROUP))
    # With the minimums and scales that will be multiplied with.
    least = exact.amin(dim=2).half()
    spread = exact.amax(dim=2) - least.float()
    scales = (spread.clamp_min(0) / _LARGEST_OF_4).half()
    codes = _codes(exact, least, scales)
    return Grouped.of_codes(codes, scales, _NIBBLE, matrix.dtype, least)


def _codes(exact: Tensor, least: Tensor, scales: Tensor) -> Tensor:
    steps = scales.float().unsqueeze(2)
    above = exact - least.float().unsqueeze(2)
    codes = torch.where(steps > 0, above / steps, 0).round_().clamp_(0, _LARGEST_OF_4)
    return codes.to(torch.uint8).flatten(1)
