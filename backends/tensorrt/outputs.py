"""Memory for outputs whose shape TensorRT knows only once it has computed them."""

from typing import Any

import numpy as np

from trivet.backends.api import DeviceArray
from trivet.backends.device.lane import Lane


class GrowingOutput:
    """Memory for one output that TensorRT asks for while it runs, and keeps from batch to batch.

    What it has allocated for a batch is handed out with the batch, so the next one gets its own.
    """

    def __init__(self, lane: Lane, dtype: np.dtype[Any]) -> None:
        self._lane = lane
        self._dtype = dtype
        self._array: DeviceArray | None = None
        self._shape: tuple[int, ...] = ()

    def reallocate(self, size_bytes: int) -> int:
        """Memory of that size; its address."""
        bytes_type = np.dtype(np.uint8)
        self._array = self._lane.empty(bytes_type, (max(1, size_bytes),))
        return self._array.address

    def notify_shape(self, shape: tuple[int, ...]) -> None:
        """The shape of what was computed."""
        self._shape = shape

    def take(self) -> DeviceArray:
        """The output of the batch that has been computed."""
        array, self._array = self._array, None
        if array is None:
            return self._lane.empty(self._dtype, self._shape)
        return DeviceArray(array.memory, array.address, self._dtype, self._shape)


def make_allocator(trt: Any, output: GrowingOutput) -> Any:
    """What TensorRT calls."""

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]  # a class of the found library
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)

        def reallocate_output(self, _name: str, _memory: int, size: int, _alignment: int) -> int:
            return output.reallocate(size)

        def reallocate_output_async(
            self, _name: str, _memory: int, size: int, _alignment: int, _stream: int
        ) -> int:
            return output.reallocate(size)

        def notify_shape(self, _name: str, shape: Any) -> None:
            output.notify_shape(tuple(shape))

    return Allocator()
