"""The part of a model that one rank of several computes: its config and its weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.models.config import LlmConfig
from trivet.backends.llm.ranks.group import Alone, Ranks

_BY_COLUMNS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
_BY_ROWS = ("o_proj", "down_proj")
_BY_TOKENS = ("embed_tokens", "lm_head")


@dataclass(frozen=True, slots=True)
class Part:
    """What a process computes of a model."""

    ranks: Ranks
    vocabulary_size: int
    """Of the whole model."""

    @classmethod
    def whole(cls, config: LlmConfig) -> "Part":
        """All of it."""
        return cls(Alone(), config.vocabulary_size)


def sharded_config(config: LlmConfig, size: int) -> LlmConfig:
    """What each of `size` ranks computes. Raises LoadFailed where heads cannot be shared out."""
    few = config.num_kv_heads < size
    fits = size % config.num_kv_heads == 0 if few else config.num_kv_heads % size == 0
    if config.num_heads % size or config.intermediate_size % size or not fits:
        raise LoadFailed(
            f"the model's {config.num_heads} heads, {config.num_kv_heads} key/value heads and "
            f"{config.intermediate_size} columns of the MLP cannot be shared out evenly to {size} "
            "ranks (model parameter tensor_parallel_size)"
        )
    return replace(
        config,
        num_heads=config.num_heads // size,
        num_kv_heads=max(config.num_kv_heads // size, 1),
        intermediate_size=config.intermediate_size // size,
        vocabulary_size=-(-config.vocabulary_size // size),
    )


class ShardedWeights(Mapping[str, Tensor]):
    """One rank's part of each weight, cut as it is asked for. Key/value heads that are fewer than
    the ranks are held by several; the vocabulary's last part is filled up with zeros."""

    def __init__(
        self, weights: Mapping[str, Tensor], config: LlmConfig, rank: int, size: int
    ) -> None:
        """`config`: of the whole model."""
        self._weights = weights
        self._config = config
        self._rank = rank
        self._size = size

    def __getitem__(self, name: str) -> Tensor:
        weight = self._weights[name]
        layer, _, kind = name.rpartition(".")
        owner = layer.rpartition(".")[2]
        if owner in _BY_COLUMNS and self._has_rows(weight, kind):
            return self._rows(weight, owner)
        if owner in _BY_ROWS and kind == "weight":
            return weight.chunk(self._size, dim=1)[self._rank].contiguous()
        if owner in _BY_ROWS and kind == "bias" and self._rank:
            return torch.zeros_like(weight)  # the sum over all ranks holds it once
        if owner in _BY_TOKENS:
            return self._tokens(weight)
        return weight

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    @staticmethod
    def _has_rows(weight: Tensor, kind: str) -> bool:
        # Scales may be one for the whole matrix.
        return kind in ("weight", "bias") or (kind == "weight_scale" and weight.numel() > 1)

    def _rows(self, weight: Tensor, owner: str) -> Tensor:
        size, rank = self._size, self._rank
        if owner in ("k_proj", "v_proj") and self._config.num_kv_heads < size:
            copies = size // self._config.num_kv_heads
            size, rank = self._config.num_kv_heads, rank // copies
        return weight.chunk(size)[rank].contiguous()

    def _tokens(self, weight: Tensor) -> Tensor:
        count = -(-len(weight) // self._size)
        part = weight[self._rank * count : (self._rank + 1) * count]
        return torch.nn.functional.pad(part, (0, 0, 0, count - len(part)))
