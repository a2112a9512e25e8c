"""Matrices that adapters may change, as those who compute have them."""

from dataclasses import dataclass

from torch import Tensor

from trivet.backends.llm.adapters.bank import AdaptedProduct, AdapterBank
from trivet.backends.llm.adapters.places import Place
from trivet.backends.llm.matrices.matrix import Multiplied


@dataclass(frozen=True, slots=True, eq=False)
class Adaptable:
    """A Multiplied whose products a step's adapters add to."""

    matrix: Multiplied
    """Of the base."""
    place: Place
    bank: AdapterBank

    @property
    def shape(self) -> tuple[int, int]:
        """See Multiplied."""
        return self.matrix.shape

    def expanded(self) -> Tensor:
        """See Multiplied: the base's."""
        return self.matrix.expanded()

    def product(self, bias: Tensor | None = None) -> AdaptedProduct:
        """See Multiplied."""
        return AdaptedProduct(self.bank, self.place, self.matrix.product(bias))
