"""Processes that compute one model together: each a part of every layer (tensor parallel), or some
of the layers, one stage after the other (pipeline parallel), or both.

Source: Shoeybi et al., Megatron-LM (2019): the first product of a pair is cut by columns, the
second by rows, so that one sum a pair suffices.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from trivet.backends.llm.families.staging import WHOLE, Stage
from trivet.backends.llm.settings import EngineSettings


class Ranks(Protocol):
    """The others that compute the same layers, as a model needs them. All of them call the same
    methods in the same order."""

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
        """The least of all ranks' numbers, those of other stages included."""


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
    """Ranks over torch.distributed."""

    def __init__(self, device: torch.device, members: list[int]) -> None:
        """`members`: those of all ranks that compute the same layers; all make all groups."""
        self._device = device
        self._members = members
        self.size = len(members)
        is_part = 1 < self.size < torch.distributed.get_world_size()
        self._group = torch.distributed.new_group(members) if is_part else None
        mine = torch.distributed.get_rank()
        self.rank = members.index(mine) if mine in members else -1

    def sum(self, part: Tensor) -> Tensor:
        """See Ranks."""
        if self.size > 1:
            torch.distributed.all_reduce(part, group=self._group)
        return part

    def joined(self, part: Tensor) -> Tensor:
        """See Ranks."""
        if self.size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        torch.distributed.all_gather(parts, part.contiguous(), group=self._group)
        return torch.cat(parts, dim=-1)

    def share(self, tensor: Tensor) -> None:
        """See Ranks."""
        torch.distributed.broadcast(tensor, src=self._members[0], group=self._group)

    def least(self, number: int) -> int:
        """See Ranks."""
        numbers = torch.tensor([number], device=self._device)
        torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MIN)
        return int(numbers)


class Neighbours(Protocol):
    """The stages before and behind this one. What one hands on, the next receives, in order."""

    @property
    def stage(self) -> Stage:
        """This one."""

    def receive(self, states: Tensor) -> None:
        """Fills it with what the stage before gives."""

    def hand_on(self, states: Tensor) -> None:
        """To the stage behind; does not wait until that receives it."""


class NoNeighbours:
    """One stage that computes all."""

    stage = WHOLE

    def receive(self, states: Tensor) -> None:
        """See Neighbours."""

    def hand_on(self, states: Tensor) -> None:
        """See Neighbours."""


class RankNeighbours:
    """Neighbours over torch.distributed: of each the rank with the same part of the layers."""

    def __init__(self, stage: Stage, before: int, behind: int) -> None:
        self.stage = stage
        self._before, self._behind = before, behind
        self._sent: deque[tuple[Any, Tensor]] = deque()
        """What is on its way stays where it is until then."""

    def receive(self, states: Tensor) -> None:
        """See Neighbours."""
        torch.distributed.recv(states, src=self._before)

    def hand_on(self, states: Tensor) -> None:
        """See Neighbours."""
        # Of the step so many before this one the engine has the tokens: nothing waits here.
        if len(self._sent) == self.stage.count:
            self._sent.popleft()[0].wait()
        # A copy: the next replay of a recorded step writes over this one's result.
        states = states.clone()
        self._sent.append((torch.distributed.isend(states, dst=self._behind), states))


@dataclass(frozen=True, slots=True)
class Joined:
    """Where one process stands among those that compute a model."""

    ranks: Ranks
    neighbours: Neighbours


ALL = Joined(Alone(), NoNeighbours())
"""One process that computes all of a model."""


def stage_of(rank: int, settings: EngineSettings) -> Stage:
    """Rank 0, which chooses the tokens, is of the last: logits need not be sent."""
    count = settings.pipeline_parallel_size
    return Stage(count - 1 - rank // settings.tensor_parallel_size, count)


def join(rank: int, settings: EngineSettings, device: torch.device, meeting: str) -> Joined:
    """Waits for the others at `meeting`, a file that is not there yet."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(
        backend, init_method=f"file://{meeting}", rank=rank, world_size=settings.num_ranks
    )
    each = settings.tensor_parallel_size
    starts = range(0, settings.num_ranks, each)
    groups = [Group(device, list(range(start, start + each))) for start in starts]
    ranks, stage = groups[rank // each], stage_of(rank, settings)
    if stage.count == 1:
        return Joined(ranks, NoNeighbours())
    return Joined(ranks, RankNeighbours(stage, rank + each, rank - each))
