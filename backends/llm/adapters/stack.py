"""The adapters of a step as few products: their matrices one below the other.

A step's rows are multiplied with all of them at once. What a row has of others' columns is then set
to zero, so that the second product, which adds all up, gives each row its own adapter's change:

    rows [N, inputs] x down [inputs, K] = lowered [N, K], K the ranks of all adapters together
    lowered, where column and row are of one adapter, x up [K, outputs] = what is added

Sorting rows by adapter would save numbers and cost a product for each; ranks are small, and a step
reads every matrix once either way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trivet.backends.llm.adapters.adapter import Adapter, LowRank
from trivet.backends.llm.adapters.places import Place


@dataclass(frozen=True, slots=True, eq=False)
class StackedPart:
    """Of one matrix within a place."""

    outputs: slice
    columns: slice
    """Of what is lowered."""
    up: Tensor
    """[columns, outputs]."""


@dataclass(frozen=True, slots=True, eq=False)
class StackedPlace:
    """All adapters' changes of one product."""

    down: Tensor
    """[inputs, K]."""
    parts: tuple[StackedPart, ...]
    owners: Tensor
    """int32 [K]: the slot of each column's adapter."""


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """The adapters of some slots."""

    slots: frozenset[int]
    rank: int
    """All their ranks together."""
    places: Mapping[int, StackedPlace]


def stack(adapters: Mapping[int, Adapter], places: Sequence[Place]) -> Stack:
    """The adapters of these slots together."""
    layouts: dict[tuple[int, ...], Tensor] = {}
    stacked = {}
    for place in places:
        made = _stacked(place, adapters, layouts)
        if made is not None:
            stacked[place.index] = made
    return Stack(frozenset(adapters), sum(each.rank for each in adapters.values()), stacked)


def _stacked(
    place: Place, adapters: Mapping[int, Adapter], layouts: dict[tuple[int, ...], Tensor]
) -> StackedPlace | None:
    downs: list[Tensor] = []
    parts: list[StackedPart] = []
    owners: list[int] = []
    for number, part in enumerate(place.parts):
        found: list[tuple[int, LowRank]] = [
            (slot, adapter.matrices[place.index, number])
            for slot, adapter in adapters.items()
            if (place.index, number) in adapter.matrices
        ]
        if not found:
            continue
        first = len(owners)
        for slot, low_rank in found:
            downs.append(low_rank.down)
            owners += [slot] * len(low_rank.down)
        up = torch.cat([low_rank.up for _, low_rank in found], dim=1).t().contiguous()
        outputs = slice(part.start, part.stop)
        parts.append(StackedPart(outputs, slice(first, len(owners)), up))
    if not parts:
        return None
    # Places of one layout share its owners, and so a step's masks.
    key = tuple(owners)
    if key not in layouts:
        layouts[key] = torch.tensor(owners, dtype=torch.int32, device=downs[0].device)
    return StackedPlace(torch.cat(downs).t().contiguous(), tuple(parts), layouts[key])
