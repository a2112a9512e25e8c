"""What a step's adapters add, as the compiled step reads it."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.adapters.bank import StepAdapters
from trivet.backends.llm.adapters.places import Place
from trivet.backends.llm.adapters.stack import Stack, StackedPlace
from trivet.backends.llm.matrices.matrix import Multiplied
from trivet.backends.llm.native.packing import HALF, PANEL, pack, pack_tiles
from trivet.backends.llm.native.structures import CAdapters, CAdded
from trivet.backends.llm.weights.adaptable import Adaptable

LayerPlaces = Sequence[Place | None]
"""Of queries, keys and values; of attention's output; into the MLP and down from it. The last two
are missing where there are experts."""
_FIELDS = ("qkv", "output", "into", "down")
_NOBODY = -1
"""Owns the columns that fill a part up to whole panels."""


def place_of(product: Multiplied) -> Place | None:
    """Where adapters may change it."""
    return product.place if isinstance(product, Adaptable) else None


@dataclass(frozen=True, slots=True, eq=False)
class AddedStack:
    """A stack, packed."""

    stack: Stack
    layers: object
    """An array of CAdapters."""
    most_depth: int
    kept: list[Tensor]
    """What its addresses point to."""


class Adding:
    """Packs the adapters of steps, and keeps the last: most steps have those of the one before."""

    def __init__(self, places: Sequence[LayerPlaces]) -> None:
        self._places = places
        self._last: AddedStack | None = None
        self._lowered = torch.empty(0, dtype=torch.bfloat16)

    def addresses(self, step: StepAdapters) -> list[int]:
        """Of the layers' adapters, the tokens' slots, and memory for what rows are lowered to."""
        if self._last is None or self._last.stack is not step.stack:
            self._last = _packed(step.stack, self._places)
        layers, depth = self._last.layers, self._last.most_depth
        rows = -(-len(step.slots) // PANEL) * PANEL
        if self._lowered.numel() < 2 * rows * depth:
            # Zeroed, for rows that only fill up a tile are computed with, too.
            self._lowered = torch.zeros(2 * rows * depth, dtype=torch.bfloat16)
        first = self._lowered.data_ptr()
        return [
            ctypes.addressof(layers),  # type: ignore[arg-type]
            step.slots.data_ptr(),
            first,
            first + rows * depth * self._lowered.element_size(),
        ]


def _packed(stack: Stack, places: Sequence[LayerPlaces]) -> AddedStack:
    kept: list[Tensor] = []
    layers = (CAdapters * len(places))()
    most_depth = 0
    for made, layer in zip(layers, places, strict=True):
        for name, place in zip(_FIELDS, layer, strict=False):
            stacked = None if place is None else stack.places.get(place.index)
            if stacked is not None:
                added = _added(stacked, kept)
                most_depth = max(most_depth, added.depth)
                setattr(made, name, added)
    return AddedStack(stack, layers, most_depth, kept)


def _added(stacked: StackedPlace, kept: list[Tensor]) -> CAdded:
    made = CAdded(parts=len(stacked.parts))
    downs, owners, end = [], [], 0
    for number, part in enumerate(stacked.parts):
        missing = -len(part.up) % PANEL
        downs.append(functional.pad(stacked.down[:, part.columns].t(), (0, 0, 0, missing)))
        owners.append(functional.pad(stacked.owners[part.columns], (0, missing), value=_NOBODY))
        up = pack_tiles(functional.pad(part.up.t(), (0, missing)).contiguous())
        kept.append(up)
        made.first_tiles[number] = part.outputs.start // HALF
        made.last_tiles[number] = part.outputs.stop // HALF
        made.first_columns[number] = end
        end += len(part.up) + missing
        made.first_columns[number + 1] = end
        made.ups[number] = up.data_ptr()
    down, slots = pack(torch.cat(downs).contiguous()), torch.cat(owners).contiguous()
    kept += [down, slots]
    made.depth, made.down, made.owners = end, down.data_ptr(), slots.data_ptr()
    return made
