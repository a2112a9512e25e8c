"""What a framework gives of padded ids, and the arrays that it speaks: numpy's or torch's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trivet.backends.encoder.turns import Turns

Array = Any
"""Of numpy or torch: what is done to them here is spelt alike in both."""


@dataclass(frozen=True, slots=True)
class Padded:
    """Rows of ids, all as long as the longest of them."""

    ids: np.ndarray
    """int64 [rows, longest]."""
    mask: np.ndarray
    """int64, 1 for tokens and 0 for padding."""
    types: np.ndarray

    @classmethod
    def of(
        cls,
        ids: Sequence[Sequence[int]],
        types: Sequence[Sequence[int] | None],
        padding_id: int,
    ) -> "Padded":
        """Padding is on the right, as encoders count their positions from the left."""
        shape = (len(ids), max(map(len, ids)))
        made = cls(
            np.full(shape, padding_id, np.int64),
            np.zeros(shape, np.int64),
            np.zeros(shape, np.int64),
        )
        for row, (each, kinds) in enumerate(zip(ids, types, strict=True)):
            size = len(each)
            made.ids[row, :size] = each
            made.mask[row, :size] = 1
            if kinds is not None:
                made.types[row, :size] = kinds
        return made


@dataclass(frozen=True, slots=True)
class Computed:
    """What came of them."""

    values: Array
    """Token vectors [rows, longest, size]; logits [rows, labels] or [rows, longest, labels]; or, of
    an ONNX file that has its pooling inside, vectors [rows, size]."""
    mask: Array
    """As `values` is: on its device."""


class Body(Protocol):
    """A loaded model."""

    @property
    def arrays(self) -> Any:
        """The module whose arrays it speaks: numpy or torch."""

    @property
    def turns(self) -> Turns:
        """In which everything is computed, from the ids to the vectors or scores."""

    def compute(self, padded: Padded) -> Computed:
        """Several instances may share it."""

    def weights(self, path: Any) -> dict[str, Array]:
        """A module's own weights, where it computes."""

    def on_host(self, values: Array) -> np.ndarray:
        """As float32."""
