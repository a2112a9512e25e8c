"""Processes that compute one model together, each a part of every layer (tensor parallel).

Source: Shoeybi et al., Megatron-LM (2019): the first product of a pair is cut by columns, the
second by rows, so that one sum a pair suffices.
"""

from typing import Protocol

import torch
from torch import Tensor


class Ranks(Protocol):
    """The others, as a model needs them. All ranks call the same methods in the same order."""

    @property
    def rank(self) -> int:
        """This process's number, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    def sum(self, part: Tensor) -> Tensor:
        """The sum of all ranks' parts; `part` may be changed."""

    def joined(self, part: Tensor) -> Tensor:
        """All ranks' parts, [N, columns], next to each other."""


class Alone:
    """One process that computes all."""

    rank = 0
    size = 1

    def sum(self, part: Tensor) -> Tensor:
        """See Ranks."""
        return part

    def joined(self, part: Tensor) -> Tensor:
        """See Ranks."""
        return part


class Group:
    """Ranks over torch.distributed's default group."""

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.size = torch.distributed.get_world_size()

    def sum(self, part: Tensor) -> Tensor:
        """See Ranks."""
        torch.distributed.all_reduce(part)
        return part

    def joined(self, part: Tensor) -> Tensor:
        """See Ranks."""
        parts = [torch.empty_like(part) for _ in range(self.size)]
        torch.distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts, dim=-1)
