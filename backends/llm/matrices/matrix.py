"""What a format of matrices must do, from a file's tensors to a product.

A format is a class: it is listed in `formats.py`, and nothing else changes. Its life, of which each
step is one method:

    file's tensors | take | part (a rank's) | to (a device) | joined (q, k, v) | product |
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

OUTPUTS, INPUTS = 0, 1
"""A matrix's axes: it is [outputs, inputs]."""
Product = Callable[[Tensor], Tensor]
"""[N, inputs] to [N, outputs], in the type of what comes in."""


class Multiplied(Protocol):
    """A matrix as those who compute have it."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""

    def product(self, bias: Tensor | None = None) -> Product:
        """In the layout that its device multiplies best. Raises LoadFailed for a shape that cannot
        be multiplied."""


class Matrix(Multiplied, Protocol):
    """[outputs, inputs] numbers in some format, not changed once made."""

    @property
    def nbytes(self) -> int:
        """Of all that it holds, scales included."""

    def part(self, axis: int, start: int, stop: int) -> Self:
        """The outputs or inputs from `start` on. Raises LoadFailed where the format cannot be cut
        there."""

    def reordered(self, order: Tensor) -> Self:
        """With its outputs in another order: int64 [outputs]."""

    def to(self, device: torch.device) -> Self:
        """On a device."""

    def joined(self, others: Sequence[Self]) -> Self:
        """With others of the same inputs below it."""


class Format(Protocol):
    """A class of Matrix, as files are read by it."""

    @property
    def name(self) -> str:
        """In settings and logs."""

    def is_in(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether some of a file's matrices may be of this format."""

    def take(self, tensors: Mapping[str, Tensor], name: str) -> Matrix | None:
        """The matrix whose tensors have a name and an ending each; None if it is of another format.
        Takes all that belongs to it, for what nobody takes is refused. Raises LoadFailed."""
