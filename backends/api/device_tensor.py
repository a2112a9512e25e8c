"""The tensor handle whose values lie on a device."""

from typing import Any, cast

import numpy as np

from trivet.backends.api.datatype import DataType
from trivet.backends.api.device import DeviceArray
from trivet.backends.api.tensor import PackedBytes, Shape, Tensor


class DeviceTensor(Tensor):
    """A Tensor on a device. Who asks for host values gets a copy, made once, and waits for it."""

    __slots__ = ("_host", "_values")

    def __init__(
        self, name: str, datatype: DataType, array: DeviceArray, host: np.ndarray | None = None
    ) -> None:
        """`host`: the same values, where they have been copied already."""
        self._values = array
        self._host = host
        super().__init__(name, datatype, array.shape, cast("np.ndarray", None))

    @classmethod
    def on(cls, name: str, array: DeviceArray, host: np.ndarray | None = None) -> "DeviceTensor":
        """A tensor on an array's memory."""
        return cls(name, DataType.from_numpy(array.dtype), array, host)

    @property
    def device(self) -> DeviceArray:
        """The values where they are."""
        return self._values

    @property
    def is_on_host(self) -> bool:
        """Whether host values are there without a copy."""
        return self._host is not None

    @property
    def data(self) -> np.ndarray:
        """The values on the host."""
        if self._host is None:
            self._host = self._values.numpy()
        return self._host

    @data.setter
    def data(self, _: np.ndarray | PackedBytes) -> None:
        """The base class sets it; there is nothing to keep."""

    @property
    def nbytes(self) -> int:
        """The size of the values."""
        return self._values.nbytes

    def under(self, name: str) -> "DeviceTensor":
        """The same data under another name."""
        return DeviceTensor(name, self.datatype, self._values, self._host)

    def renamed(self, name: str, shape: Shape) -> "DeviceTensor":
        """The same memory under another name and a shape of as many elements."""
        host = None if self._host is None else self._host.reshape(shape)
        return DeviceTensor(name, self.datatype, self._values.reshape(shape), host)

    def __dlpack__(self, **options: Any) -> object:
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._values.__dlpack_device__()
