"""The border between host and device: what makes the engine's thread wait is done here and counted.

Where both are one, nothing waits.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor


class Waits:
    """How often a thread has waited for its device."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


current_waits: ContextVar[Waits | None] = ContextVar("current_waits", default=None)
"""Set by the thread that counts."""


def note_wait() -> None:
    """The thread waits for the device."""
    waits = current_waits.get()
    if waits is not None:
        waits.count += 1


def listed(tensor: Tensor) -> list[Any]:
    """The values, on the host: waits until they are computed."""
    if tensor.device.type != "cpu":
        note_wait()
    values: list[Any] = tensor.tolist()
    return values


def true_places(mask: Tensor) -> list[int]:
    """Where a mask of one dimension holds, on the host."""
    if mask.device.type != "cpu":
        # How many there are decides the size of what comes.
        note_wait()
    return listed(mask.nonzero()[:, 0])


def brought(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor, there. A copy out of memory that is not pinned is waited for."""
    if tensor.device != device:
        note_wait()
    return tensor.to(device)


def placed(values: Sequence[Any], device: torch.device) -> Tensor:
    """A tensor of these values, there; the copy is waited for."""
    if device.type != "cpu":
        note_wait()
    return torch.tensor(values, device=device)
