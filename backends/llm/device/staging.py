"""Brings what a step reads to the device: all arrays in one copy out of pinned memory."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from trivet.backends.llm.device.border import note_wait
from trivet.backends.llm.scheduling.batch_state import StepArrays

ALIGNMENT = 16
_TYPES = {
    "int64": torch.int64,
    "int32": torch.int32,
    "float64": torch.float64,
    "float32": torch.float32,
}


class Staging(Protocol):
    """Makes tensors of arrays. Owned by the engine's thread."""

    def bring(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        """On the device; good until the next call."""


class HostStaging:
    """For a processor: the arrays' own memory."""

    def bring(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        """See Staging."""
        return [torch.from_numpy(array) for array in arrays]


class DeviceStaging:
    """Buffers, two pinned on the host and one on the device, which grow as steps do.

    host memory A: | token_ids | positions | ... |  written by the processor for one step,
    host memory B: | token_ids | positions | ... |  for the next, while A is still to be copied
                        one copy, not waited for
    device memory: | token_ids | positions | ... |  read by the step's kernels, in stream order
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_cuda = device.type == "cuda"
        self._hosts = [self._pinned(1 << 16), self._pinned(1 << 16)]
        self._there = torch.empty(1 << 16, dtype=torch.uint8, device=device)

    def bring(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        """See Staging. Called with the same shapes, it gives tensors at the same addresses."""
        offsets, size = _offsets(arrays)
        host = self._hosts.pop(0)
        host.await_copied()
        if size > len(host.memory):
            host = self._pinned(2 * size)
        self._hosts.append(host)
        if size > len(self._there):
            self._there = torch.empty(2 * size, dtype=torch.uint8, device=self._device)
        for array, offset in zip(arrays, offsets, strict=True):
            target = host.bytes[offset : offset + array.nbytes].view(array.dtype)
            target.reshape(array.shape)[...] = array
        self._there[:size].copy_(host.memory[:size], non_blocking=True)
        host.note_copying()
        return [
            self._there[offset : offset + array.nbytes]
            .view(_TYPES[array.dtype.name])
            .view(array.shape)
            for array, offset in zip(arrays, offsets, strict=True)
        ]

    def _pinned(self, size: int) -> "_HostBuffer":
        return _HostBuffer(size, is_pinned=self._is_cuda)


class _HostBuffer:
    """Memory that is written by the processor and copied from by the device, in turn."""

    def __init__(self, size: int, *, is_pinned: bool) -> None:
        self.memory = torch.empty(size, dtype=torch.uint8, pin_memory=is_pinned)
        self.bytes = self.memory.numpy()
        self._copied: torch.cuda.Event | None = None
        if is_pinned:
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own lack

    def note_copying(self) -> None:
        if self._copied is not None:
            self._copied.record()

    def await_copied(self) -> None:
        # The step before last has landed, and its inputs long before; but a step that samples
        # nothing is not waited for.
        if self._copied is not None and not self._copied.query():  # type: ignore[no-untyped-call]
            note_wait()
            self._copied.synchronize()


def _offsets(arrays: Sequence[np.ndarray]) -> tuple[list[int], int]:
    offsets, end = [], 0
    for array in arrays:
        offsets.append(end)
        end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    return offsets, end


def make_staging(device: torch.device) -> Staging:
    """The way to a device."""
    return HostStaging() if device.type == "cpu" else DeviceStaging(device)


def step_arrays(arrays: StepArrays, rows: list[int]) -> list[np.ndarray]:
    """The fields of a step's `StepInputs`, with logits wanted at the places `rows`."""
    return [
        arrays.token_ids, arrays.positions, arrays.slot_mapping, arrays.query_starts,
        arrays.sequence_lengths, arrays.block_tables, np.array(rows, dtype=np.int64),
    ]  # fmt: skip
