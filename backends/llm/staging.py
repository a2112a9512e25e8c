"""Brings what a step reads to the device: all arrays in one copy out of pinned memory."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.batch_state import StepArrays
from trivet.backends.llm.border import note_wait

ALIGNMENT = 16
_TYPES = {"int64": torch.int64, "int32": torch.int32}


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
    """Two buffers, one pinned on the host and one on the device, which grow as steps do.

    host memory:  | token_ids | positions | ... |  written by the processor
                        one copy, not waited for
    device memory: | token_ids | positions | ... |  read by the step's kernels, in stream order
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_cuda = device.type == "cuda"
        self._copied: torch.cuda.Event | None = None
        if self._is_cuda:
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own lack
        self._reserve(1 << 16)

    def bring(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        """See Staging. Called with the same shapes, it gives tensors at the same addresses."""
        offsets, size = _offsets(arrays)
        if self._copied is not None:
            # A step that sampled nothing did not wait for its own inputs.
            note_wait()
            self._copied.synchronize()
        if size > len(self._host):
            self._reserve(2 * size)
        for array, offset in zip(arrays, offsets, strict=True):
            target = self._bytes[offset : offset + array.nbytes].view(array.dtype)
            target.reshape(array.shape)[...] = array
        self._there[:size].copy_(self._host[:size], non_blocking=True)
        if self._copied is not None:
            self._copied.record()
        return [
            self._there[offset : offset + array.nbytes]
            .view(_TYPES[array.dtype.name])
            .view(array.shape)
            for array, offset in zip(arrays, offsets, strict=True)
        ]

    def _reserve(self, size: int) -> None:
        self._host = torch.empty(size, dtype=torch.uint8, pin_memory=self._is_cuda)
        self._bytes = self._host.numpy()
        self._there = torch.empty(size, dtype=torch.uint8, device=self._device)


def _offsets(arrays: Sequence[np.ndarray]) -> tuple[list[int], int]:
    offsets, end = [], 0
    for array in arrays:
        offsets.append(end)
        end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    return offsets, end


def make_staging(device: torch.device) -> Staging:
    """The way to a device."""
    return HostStaging() if device.type == "cpu" else DeviceStaging(device)


def step_inputs(staging: Staging, arrays: StepArrays, rows: list[int]) -> StepInputs:
    """A step's tensors, with logits wanted at the places `rows`."""
    return StepInputs(*staging.bring([
        arrays.token_ids, arrays.positions, arrays.slot_mapping, arrays.query_starts,
        arrays.sequence_lengths, arrays.block_tables, np.array(rows, dtype=np.int64),
    ]))  # fmt: skip
