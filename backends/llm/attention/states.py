"""Keys or values of a layer as plain torch reads and writes them, whatever they are kept as."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.matrices.fp8 import FP8_MAX


@dataclass(frozen=True, slots=True)
class States:
    """Of all slots."""

    data: Tensor
    """[slots, key/value heads, head size]."""
    read_as: torch.dtype
    scale: float
    """What numbers of 8 bits are divided by."""

    def put(self, slots: Tensor, states: Tensor) -> None:
        """[slots, key/value heads, head size]; what is too large for 8 bits is cut."""
        if self.data.dtype == self.read_as:
            self.data[slots] = states
            return
        cut = (states.float() / self.scale).clamp_(-FP8_MAX, FP8_MAX)
        # As bytes: torch puts none of its 8-bit numbers where an index says.
        self._bytes[slots] = cut.to(self.data.dtype).view(torch.uint8)

    def at(self, slots: Tensor) -> Tensor:
        """Of some slots: int64 [any]."""
        # index_select copies whole rows; indexing with a tensor takes three times as long here.
        if self.data.dtype == self.read_as:
            return self.data.index_select(0, slots)
        found = self._bytes.index_select(0, slots).view(self.data.dtype).to(self.read_as)
        return found if self.scale == 1 else found.mul_(self.scale)

    @property
    def _bytes(self) -> Tensor:
        return self.data.view(torch.uint8)


def states_of(cache: KvCache) -> list[tuple[States, States]]:
    """Keys and values of each layer; the same twice where they are."""
    found = []
    for layer, (key_scale, value_scale) in zip(cache.layers, cache.scales, strict=True):
        keys = States(layer[0].flatten(0, 1), cache.read_as, key_scale)
        is_one = len(layer) == 1
        values = keys if is_one else States(layer[1].flatten(0, 1), cache.read_as, value_scale)
        found.append((keys, values))
    return found
