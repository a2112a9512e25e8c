"""Attention that reads pages where they lie, whichever kernels do it: its cache, and who writes."""

from abc import ABC, abstractmethod

import triton
from torch import Tensor

from trivet.backends.llm.attention import paged_kernels
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache


class PagedAttention(ABC):
    """An Attention in two halves, since a model may write the cache itself with what it computes
    on the way."""

    is_recordable = True
    """Whether steps of one shape do the same on the device and ask it nothing."""

    def __init__(self, cache: KvCache) -> None:
        self.hold(cache)

    def hold(self, cache: KvCache) -> None:
        """Reads and writes this cache from now on; it is of the first one's shape and types, but
        for the number of blocks."""
        self._block_size = cache.block_size
        self._scales = cache.scales
        # [slots, key/value heads, head size] of each layer.
        self._states = [(layer[0].flatten(0, 1), layer[1].flatten(0, 1)) for layer in cache.layers]
        self._num_kv_heads = cache.layers[0].shape[3]

    def begin(self, inputs: StepInputs) -> None:
        """See Attention."""
        self._inputs = inputs

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, sinks: Tensor | None = None
    ) -> Tensor:
        """See Attention."""
        assert sinks is None, "models that have some are not computed this way"
        self._write(layer, key, value)
        return self.read(layer, query)

    @abstractmethod
    def read(self, layer: int, query: Tensor) -> Tensor:
        """Attends with queries whose keys and values the cache has."""

    def pages(self, layer: int) -> tuple[Tensor, Tensor]:
        """A layer's keys and values, [slots, key/value heads, head size]."""
        return self._states[layer]

    def scales(self, layer: int) -> tuple[float, float]:
        """What a layer's keys and values are divided by in the cache."""
        return self._scales[layer]

    def _write(self, layer: int, key: Tensor, value: Tensor) -> None:
        keys, values = self._states[layer]
        key_scale, value_scale = self._scales[layer]
        paged_kernels.write_states[(len(key),)](
            key, value, self._inputs.slot_mapping, keys, values,
            key.stride(0), key.stride(1), value.stride(0), value.stride(1),
            keys.stride(0), keys.stride(1), 1 / key_scale, 1 / value_scale,
            NUM_HEADS=self._num_kv_heads, HEAD_SIZE=keys.shape[2],
            PADDED_HEADS=triton.next_power_of_2(self._num_kv_heads),
            IS_8BIT=keys.element_size() == 1,
        )  # fmt: skip
