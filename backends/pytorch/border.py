"""The border between host and device: what crosses it, and each wait, is told to the batch."""

from collections.abc import Callable

import numpy as np
import torch

from trivet.backends.api import Batch, CopyKind
from trivet.backends.pytorch.tensors import to_numpy, to_torch


class Border:
    """Of an instance on one device; None: where the program puts itself. Owned by its thread."""

    def __init__(
        self,
        device: torch.device | None,
        synchronise: Callable[[torch.device], None] = torch.cuda.synchronize,
    ) -> None:
        self._device = device
        self._synchronise = synchronise

    def bring(self, batch: Batch, values: np.ndarray) -> torch.Tensor:
        """The tensor of an array, where the program computes. Waits for the copy if it is one."""
        tensor = to_torch(values, self._device)
        if tensor.device.type != "cpu":
            batch.copied(CopyKind.HOST_TO_DEVICE, values.nbytes)
            batch.synchronised()
        return tensor

    def wait(self, batch: Batch) -> None:
        """Returns when the device has computed what it was given."""
        if self._device is not None and self._device.type == "cuda":
            self._synchronise(self._device)
            batch.synchronised()

    def take(self, batch: Batch, tensor: torch.Tensor) -> np.ndarray:
        """The array of a tensor. Waits for the copy if it is one."""
        values = to_numpy(tensor)
        if tensor.device.type != "cpu":
            batch.copied(CopyKind.DEVICE_TO_HOST, values.nbytes)
            batch.synchronised()
        return values
