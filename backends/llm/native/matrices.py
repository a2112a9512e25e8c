"""Matrices as the compiled step reads them: numbers, or codes that stay packed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from trivet.backends.llm.matrices.bits import LOW_BITS
from trivet.backends.llm.matrices.codes import E4M3, Code
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.grouped import Grouped
from trivet.backends.llm.matrices.matrix import INPUTS, OUTPUTS, Multiplied
from trivet.backends.llm.matrices.mixed import Mixed
from trivet.backends.llm.native.packing import (
    PANEL,
    interleaved,
    laid_plane,
    numbers_of,
    pack,
    padded,
)
from trivet.backends.llm.native.structures import CMatrix
from trivet.backends.llm.weights.adaptable import Adaptable

SCALE_KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""In the order of model.h."""
_WHOLE, _TABLE, _FLOAT8 = 0, 1, 2
_NUMBER_BITS = 16
_FINEST = 16
"""The smallest group of inputs that share a scale."""
_FACTORS = (1, 2, 4)
"""That may make a table's numbers whole."""


class PackedMatrix:
    """One product's weights. Keeps what their addresses point to."""

    def __init__(
        self, matrix: Multiplied, *, is_gated: bool = False, is_in_order: bool = False
    ) -> None:
        """`is_gated`: a gate and what it lets through, which then lie in the same panels.
        `is_in_order`: whoever multiplies reads rows as they are, so that codes in another order
        become numbers."""
        if isinstance(matrix, Adaptable):
            matrix = matrix.matrix
        if is_in_order and isinstance(matrix, Grouped) and matrix.order is not None:
            matrix = Dense(matrix.expanded())
        self._kept: list[Tensor] = []
        made = [self._one(part, is_gated=is_gated) for part in _parts_of(matrix, is_gated=is_gated)]
        self.array = (CMatrix * len(made))(*made)
        self.num_columns = PANEL * sum(part.panels for part in made)

    def _one(self, part: Multiplied, *, is_gated: bool) -> CMatrix:
        if isinstance(part, Grouped):
            order = torch.arange(part.shape[OUTPUTS])
            return self._codes(part, interleaved(order) if is_gated else order)
        numbers = numbers_of(part)
        packed = pack(interleaved(numbers) if is_gated else padded(numbers))
        self._kept.append(packed)
        return matrix_of(packed)

    def _codes(self, part: Grouped, order: Tensor) -> CMatrix:
        """`order`: of its outputs."""
        bits, low = part.code.bits, LOW_BITS[part.code.bits]
        panels = -(-len(order) // PANEL)
        made = CMatrix(
            panels=panels, bits=bits, group=part.group_size,
            low=self._address(laid_plane(part.low, low, order)),
        )  # fmt: skip
        if part.high is not None:
            made.high = self._address(laid_plane(part.high, bits - low, order))
        factor = _fill_code(made, part.code)
        made.scale_kind = SCALE_KINDS[part.scales.dtype]
        scales = part.scales / factor if factor > 1 else part.scales
        made.scales = self._address(_by_panel(scales[order]))
        if part.minimums is not None:
            made.minimums = self._address(_by_panel(part.minimums[order]))
        if part.order is not None:
            made.order = self._address(part.order.int())
        return made

    def _address(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()


def matrix_of(packed: Tensor) -> CMatrix:
    """Of numbers as `pack` has them, which must be kept."""
    return CMatrix(panels=len(packed), bits=_NUMBER_BITS, low=packed.data_ptr())


def _parts_of(matrix: Multiplied, *, is_gated: bool) -> Sequence[Multiplied]:
    """What has columns of its own; all as one where that cannot be."""
    parts = matrix.parts if isinstance(matrix, Mixed) else (matrix,)
    if len(parts) > 1 and (is_gated or not all(map(_can_be_part, parts))):
        return (Dense(matrix.expanded()),)
    return tuple(map(_readable, parts))


def _can_be_part(part: Multiplied) -> bool:
    is_ordered = isinstance(part, Grouped) and part.order is not None
    return not part.shape[OUTPUTS] % PANEL and not is_ordered


def _readable(part: Multiplied) -> Multiplied:
    """As it is where the step can read it, else its numbers."""
    return part if isinstance(part, Grouped) and can_stay_packed(part) else Dense(part.expanded())


def can_stay_packed(matrix: Grouped) -> bool:
    """Whether its groups and codes are such as the step reads."""
    inputs, size, code = matrix.shape[INPUTS], matrix.group_size, matrix.code
    is_known = not code.table or code == E4M3 or len(code.table) <= 2**4
    return not inputs % PANEL and (size == _FINEST or not size % PANEL) and is_known


def _fill_code(made: CMatrix, code: Code) -> int:
    """What codes are worth; returns what scales are to be divided by."""
    made.zero = code.zero
    if code == E4M3:
        made.worth = _FLOAT8
    if not code.table or code == E4M3:
        made.is_whole = made.worth == _WHOLE
        return 1
    made.worth = _TABLE
    table = torch.tensor(code.table, dtype=torch.float64)
    for factor in _FACTORS:
        numbers = table * factor
        least = int(numbers.min().floor())
        if torch.equal(numbers, numbers.round()) and numbers.max() - least < 2**8:
            made.is_whole, made.zero = True, -least
            made.table[:] = numbers.tolist()
            made.worths[:] = (numbers - least).int().tolist()
            return factor
    made.table[:] = table.tolist()
    return 1


def _by_panel(scales: Tensor) -> Tensor:
    """[outputs, groups] to [panels, groups, PANEL]."""
    filled = padded(scales)
    return filled.view(-1, PANEL, filled.shape[1]).transpose(1, 2).contiguous()
