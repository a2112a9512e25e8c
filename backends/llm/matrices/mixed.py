"""Matrices of several formats, multiplied as one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.matrix import INPUTS, OUTPUTS, Matrix, Product


@dataclass(frozen=True, slots=True, eq=False)
class Mixed:
    """A Multiplied."""

    parts: tuple[Matrix, ...]
    """Of the same inputs, each below the one before it."""

    @property
    def shape(self) -> tuple[int, int]:
        """See Multiplied."""
        return sum(part.shape[OUTPUTS] for part in self.parts), self.parts[0].shape[INPUTS]

    def expanded(self) -> Tensor:
        """See Multiplied."""
        return torch.cat([part.expanded() for part in self.parts])

    def product(self, bias: Tensor | None = None) -> Product:
        """See Multiplied. On a GPU each part stays as it lies."""
        if self.parts[0].device.type != "cuda":
            return Dense(self.expanded()).product(bias)
        products = [part.product() for part in self.parts]

        def joined(rows: Tensor) -> Tensor:
            outputs = torch.cat([product(rows) for product in products], dim=-1)
            return outputs if bias is None else outputs + bias

        return joined
