"""numpy arrays to torch tensors and back, on the same memory where both are on the host."""

import numpy as np
import torch

from trivet.backends.api import DataType

DATATYPES = {
    torch.bool: DataType.BOOL,
    torch.uint8: DataType.UINT8,
    torch.uint16: DataType.UINT16,
    torch.uint32: DataType.UINT32,
    torch.uint64: DataType.UINT64,
    torch.int8: DataType.INT8,
    torch.int16: DataType.INT16,
    torch.int32: DataType.INT32,
    torch.int64: DataType.INT64,
    torch.float16: DataType.FP16,
    torch.bfloat16: DataType.BF16,
    torch.float32: DataType.FP32,
    torch.float64: DataType.FP64,
}
"""All but BYTES, for which PyTorch has no tensor."""


class _WritableView:
    """Shows numpy a read-only array as writable.

    torch.from_numpy warns about read-only memory, which the views on a request body are; torch has
    no read-only tensors. A model must not write into its inputs, whoever owns them.
    """

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, array: np.ndarray) -> None:
        address, _is_read_only = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}
        self.owner = array


def to_torch(array: np.ndarray, device: torch.device | None) -> torch.Tensor:
    """A tensor on the array's memory, or a copy on another device (None: on the host)."""
    is_bfloat16 = array.dtype == DataType.BF16.dtype
    plain = array.view(np.int16) if is_bfloat16 else array
    writable = plain if plain.flags.writeable else np.asarray(_WritableView(plain))
    tensor = torch.from_numpy(writable)
    if is_bfloat16:
        tensor = tensor.view(torch.bfloat16)
    return tensor if device is None or device.type == "cpu" else tensor.to(device)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """An array on a host tensor's memory, or a copy of a device's."""
    host = tensor.detach().cpu()
    if host.dtype is not torch.bfloat16:
        array: np.ndarray = host.numpy()
        return array
    return host.view(torch.int16).numpy().view(DataType.BF16.dtype)
