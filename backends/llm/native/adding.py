"""What a step's adapters add, as the compiled step reads it."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from trivet.backends.llm.adapters.bank import StepAdapters
from trivet.backends.llm.adapters.places import Place
from trivet.backends.llm.adapters.stack import Stack, StackedPlace
from trivet.backends.llm.matrices.matrix import Multiplied
from trivet.backends.llm.models.parts import AttentionWeights, MlpWeights
from trivet.backends.llm.native.matrices import matrix_of
from trivet.backends.llm.native.packing import HALF, PANEL, pack, pack_tiles
from trivet.backends.llm.native.structures import CAdapters, CAdded, CStep
from trivet.backends.llm.weights.adaptable import Adaptable

_NOBODY = -1
"""Owns the columns that fill a part up to whole panels."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerPlaces:
    """Where adapters may change a layer."""

    qkv: Place | None
    output: Place | None
    into: Sequence[Place | None]
    """Of its MLPs, in the structure's order."""
    down: Sequence[Place | None]
    num_of_token: int
    """How many of the MLPs compute a token."""

    @classmethod
    def of(
        cls, attention: AttentionWeights, mlps: Sequence[MlpWeights], num_of_token: int
    ) -> "LayerPlaces":
        """Of products with these weights."""
        return cls(
            _place_of(attention.qkv),
            _place_of(attention.output),
            [_place_of(mlp.inner) for mlp in mlps],
            [_place_of(mlp.down) for mlp in mlps],
            num_of_token,
        )


def _place_of(product: Multiplied) -> Place | None:
    return product.place if isinstance(product, Adaptable) else None


class Adding:
    """Packs the adapters of steps, and keeps the last: most steps have those of the one before."""

    def __init__(self, places: Sequence[LayerPlaces]) -> None:
        self._places = places
        self._most_of_token = max(layer.num_of_token for layer in places)
        self._last: _PackedStack | None = None
        self._lowered = torch.empty(0, dtype=torch.bfloat16)

    def fill(self, made: CStep, step: StepAdapters) -> None:
        """Adds the layers' adapters, the tokens' slots, and memory for what rows are lowered to."""
        if self._last is None or self._last.stack is not step.stack:
            self._last = _PackedStack(step.stack, self._places)
        depth, tokens = self._last.most_depth, len(step.slots)
        rows = -(-tokens // PANEL) * PANEL
        # Of experts, tiles read whole ones beyond the last row.
        rows_too = tokens * self._most_of_token + PANEL
        if self._lowered.numel() < (rows + rows_too) * depth:
            # Zeroed, for rows that only fill up a tile are computed with, too.
            self._lowered = torch.zeros((rows + rows_too) * depth, dtype=torch.bfloat16)
        made.adapters = ctypes.addressof(self._last.layers)
        made.adapter_slots = step.slots.data_ptr()
        made.lowered = self._lowered.data_ptr()
        made.lowered_too = made.lowered + rows * depth * self._lowered.element_size()
        made.most_depth = depth


class _PackedStack:
    """A stack as the step reads it, and what its addresses point to."""

    def __init__(self, stack: Stack, places: Sequence[LayerPlaces]) -> None:
        self.stack = stack
        self.most_depth = 0
        self._kept: list[object] = []
        self.layers = (CAdapters * len(places))(*map(self._layer, places))

    def _layer(self, places: LayerPlaces) -> CAdapters:
        into, down = self._each(places.into), self._each(places.down)
        return CAdapters(self._added(places.qkv), self._added(places.output), into, down)

    def _each(self, places: Sequence[Place | None]) -> "ctypes.Array[CAdded]":
        made = (CAdded * len(places))(*map(self._added, places))
        self._kept.append(made)
        return made

    def _added(self, place: Place | None) -> CAdded:
        stacked = None if place is None else self.stack.places.get(place.index)
        if stacked is None:
            return CAdded()
        made = _packed(stacked, self._kept)
        self.most_depth = max(self.most_depth, made.depth)
        return made


def _packed(stacked: StackedPlace, kept: list[object]) -> CAdded:
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
    packed, slots = pack(torch.cat(downs).contiguous()), torch.cat(owners).contiguous()
    down = matrix_of(packed)
    kept += [packed, slots, down]
    made.depth, made.down, made.owners = end, ctypes.addressof(down), slots.data_ptr()
    return made
