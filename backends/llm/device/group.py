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

    def share(self, tensor: Tensor) -> None:
        """Rank 0's contents for all."""

    def least(self, number: int) -> int:
        """The least of all ranks' numbers."""


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

    def share(self, tensor: Tensor) -> None:
        """See Ranks."""

    def least(self, number: int) -> int:
        """See Ranks."""
        return number


class Group:
    """Ranks over torch.distributed's default group."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
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

    def share(self, tensor: Tensor) -> None:
        """See Ranks."""
        torch.distributed.broadcast(tensor, src=0)

    def least(self, number: int) -> int:
        """See Ranks."""
        numbers = torch.tensor([number], device=self._device)
        torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MIN)
        return int(numbers)


def join(rank: int, size: int, device: torch.device, meeting: str) -> Ranks:
    """Waits for the others at `meeting`, a file that is not there yet."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(
        backend, init_method=f"file://{meeting}", rank=rank, world_size=size
    )
    return Group(device)
