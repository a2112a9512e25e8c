"""What a format of matrices must do, from a file's tensors to a product.

A format is a class. What lies in files is brought into it by a reader (`weights/`); from then
on, each step of its life is one method:

    file's tensors | part (a rank's) | to (a device) | joined (q, k, v) | product |
"""

from collections.abc import Callable, Sequence
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

    def expanded(self) -> Tensor:
        """Its numbers, [outputs, inputs]."""

    def product(self, bias: Tensor | None = None) -> Product:
        """In the layout that its device multiplies best. Raises LoadFailed for a shape that cannot
        be multiplied."""


class Matrix(Multiplied, Protocol):
    """[outputs, inputs] numbers in some format, not changed once made."""

    @property
    def name(self) -> str:
        """The format's, in settings and logs."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its numbers, once they are expanded."""

    @property
    def device(self) -> torch.device:
        """Where it lies."""

    @property
    def nbytes(self) -> int:
        """Of all that it holds, scales included."""

    def part(self, axis: int, start: int, stop: int) -> Self:
        """The outputs or inputs from `start` on. Raises LoadFailed where the format cannot be cut
        there."""

    def reordered(self, order: Tensor) -> Self:
        """Of some of its outputs, in an order: int64 [any]."""

    def to(self, device: torch.device) -> Self:
        """On a device."""

    def can_join(self, other: Self) -> bool:
        """Whether one matrix can hold both, of the same inputs."""

    def joined(self, others: Sequence[Self]) -> Self:
        """With others below it, such as `can_join` says."""


Stored = Tensor | Matrix
"""A weight by its name: `X.weight` is a Matrix where the file has it packed, and then always
[outputs, inputs]."""
