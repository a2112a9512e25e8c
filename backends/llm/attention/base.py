"""What a step computes, as tensors, and what a way of computing attention must do."""

from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor

from trivet.backends.llm.attention.kv_cache import KvCache


@dataclass(frozen=True, slots=True)
class StepInputs:
    """N tokens of S sequences; see `StepArrays`, whose tensors these are."""

    token_ids: Tensor
    """int64 [N]."""
    positions: Tensor
    """int64 [N]."""
    slot_mapping: Tensor
    """int64 [N]: block * block size + offset."""
    query_starts: Tensor
    """int32 [S + 1]."""
    sequence_lengths: Tensor
    """int32 [S]: tokens in the cache after this step."""
    block_tables: Tensor
    """int32 [S, most blocks]."""
    sample_rows: Tensor
    """int64 [R]: tokens, by their place in the step, whose logits are wanted."""
    states: Tensor | None = None
    """[N, hidden]: what the stage before gives; None for a model that begins with tokens."""

    def to(self, device: torch.device) -> "StepInputs":
        """On a device."""
        tensors = {each.name: getattr(self, each.name) for each in fields(self)}
        moved = {name: each.to(device) for name, each in tensors.items() if each is not None}
        return replace(self, **moved)


class Attention(Protocol):
    """Computes attention. Owned by the engine's thread."""

    def hold(self, cache: KvCache) -> None:
        """Reads and writes this cache from now on; it is of the first one's shape and types, but
        for the number of blocks."""

    def begin(self, inputs: StepInputs) -> None:
        """A step begins: what all its layers share can be prepared."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, sinks: Tensor | None = None
    ) -> Tensor:
        """Puts the new keys and values [N, key/value heads, head size] into the cache and attends
        causally with the queries [N, heads, head size]; same shape out. `sinks`: of each head a
        score that takes its share and gives nothing, where the layer's kind has them."""
