"""Attention of models whose layers are of several kinds: one Attention for each kind."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from trivet.backends.llm.attention.base import Attention, StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.kinds import GroupedAttention

MakeAttention = Callable[[LlmConfig, KvCache], Attention]
"""For a config whose layers are all of one kind, which are those of the cache."""


class LayeredAttention:
    """Owned by the engine's thread."""

    def __init__(self, config: LlmConfig, cache: KvCache, make: MakeAttention) -> None:
        places: dict[GroupedAttention, list[int]] = {}
        for index, layer in enumerate(config.layers):
            places.setdefault(layer.attention, []).append(index)
        self._places = list(places.values())
        self._kinds = [
            make(replace(config, layers=tuple(config.layers[at] for at in of)), cache.part(of))
            for of in self._places
        ]
        self._of: dict[int, tuple[Attention, int]] = {
            layer: (attention, own)
            for attention, of in zip(self._kinds, self._places, strict=True)
            for own, layer in enumerate(of)
        }
        """For each layer its attention, and its number there."""

    def hold(self, cache: KvCache) -> None:
        """See Attention."""
        for attention, of in zip(self._kinds, self._places, strict=True):
            attention.hold(cache.part(of))

    def begin(self, inputs: StepInputs) -> None:
        """See Attention."""
        for attention in self._kinds:
            attention.begin(inputs)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See Attention."""
        attention, own = self._of[layer]
        return attention.attend(own, query, key, value)


def attention_of(config: LlmConfig, cache: KvCache, make: MakeAttention) -> Attention:
    """One of `make`'s where all layers are alike."""
    kinds = {layer.attention for layer in config.layers}
    return make(config, cache) if len(kinds) == 1 else LayeredAttention(config, cache, make)


def torch_attention(config: LlmConfig, cache: KvCache) -> Attention:
    """Torch's, which computes any size."""
    return TorchAttention(cache, config.attention.scale, config.attention.window)
