"""Ranks in threads of one process."""

import threading

import torch
from patience import patience
from torch import Tensor


class Meeting:
    """Ranks in threads of one process, who meet at each sum."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size, timeout=patience())
        self._parts: list[Tensor] = [torch.empty(0)] * size

    def exchange(self, rank: int, part: Tensor) -> list[Tensor]:
        self._parts[rank] = part
        self._barrier.wait()
        parts = [each.clone() for each in self._parts]
        self._barrier.wait()
        return parts


class ThreadRank:
    """A Ranks in a thread."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.rank, self.size = rank, meeting.size
        self._meeting = meeting

    def sum(self, part: Tensor) -> Tensor:
        return torch.stack(self._meeting.exchange(self.rank, part)).sum(0)

    def joined(self, part: Tensor) -> Tensor:
        return torch.cat(self._meeting.exchange(self.rank, part), dim=-1)

    def share(self, tensor: Tensor) -> None:
        tensor.copy_(self._meeting.exchange(self.rank, tensor)[0])

    def least(self, number: int) -> int:
        return min(int(x) for x in self._meeting.exchange(self.rank, torch.tensor(number)))
