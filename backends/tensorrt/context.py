"""One execution context of an engine: shapes and addresses in, computed arrays out."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from trivet.backends.api import (
    BackendFailed,
    DeviceArray,
    DeviceFull,
    InvalidRequest,
    Shape,
    Stream,
)
from trivet.backends.device.lane import Lane
from trivet.backends.tensorrt.description import Description, EngineTensor
from trivet.backends.tensorrt.library import TensorRt, first_reason
from trivet.backends.tensorrt.outputs import GrowingOutput, make_allocator

ALIGNMENT = 256
"""Where TensorRT wants device addresses."""


class EngineContext:
    """Owned by the instance's thread."""

    def __init__(
        self, library: TensorRt, context: Any, profile: int, engine: Description, lane: Lane
    ) -> None:
        """`context` is TensorRT's, with this profile set."""
        self.profile = profile
        self._library = library
        self._context = context
        self._engine = engine
        self._lane = lane
        self._growing: dict[str, GrowingOutput] = {}
        self._allocators: list[Any] = []  # TensorRT does not hold them
        self._on_host: dict[str, np.ndarray] = {}

    def set_inputs(
        self, arrays: Mapping[str, DeviceArray], shapes: Mapping[str, np.ndarray]
    ) -> None:
        """The inputs of the next run: arrays on the device, values of shape tensors on the host.

        Raises InvalidRequest for a shape that the engine refuses.
        """
        for name, array in arrays.items():
            if not self._context.set_input_shape(name, array.shape):
                raise InvalidRequest(
                    f"the engine refuses shape {list(array.shape)} for input '{name}'"
                )
            self._context.set_tensor_address(name, array.address)
        for name, values in shapes.items():
            self._on_host[name] = values
            self._context.set_tensor_address(name, values.ctypes.data)

    def set_outputs(self, arrays: Mapping[str, DeviceArray]) -> None:
        """Where results go whose memory is there already."""
        for name, array in arrays.items():
            self._context.set_tensor_address(name, array.address)

    def output_shapes(self) -> dict[str, Shape]:
        """Of the next run; -1 where only the run will show. Raises InvalidRequest."""
        with self._library.listening() as errors:
            missing = self._context.infer_shapes()
            reason = first_reason(errors)
        if missing:
            raise InvalidRequest(f"the engine cannot tell its outputs' shapes: {reason}")
        return {t.name: tuple(self._context.get_tensor_shape(t.name)) for t in self._engine.outputs}

    def run(self, stream: Stream) -> None:
        """Gives the computation to a stream. Raises BackendFailed."""
        with self._library.listening() as errors:
            is_started = self._context.execute_async_v3(stream.handle)
            reason = first_reason(errors)
        if not is_started:
            if "memory" in reason.lower():
                raise DeviceFull(
                    f"the GPU had no memory left for this batch ({reason}); lower max_batch_size "
                    "or the number of instances"
                )
            raise BackendFailed(f"TensorRT could not run the engine: {reason}")

    def allocate(self, shapes: Mapping[str, Shape]) -> dict[str, DeviceArray]:
        """Memory for the outputs of the next run whose shapes are known; the others' grows."""
        arrays: dict[str, DeviceArray] = {}
        for tensor in self._engine.outputs:
            shape = shapes[tensor.name]
            if tensor.is_shape_tensor:
                self._place_on_host(tensor, shape)
            elif -1 in shape:
                self._let_grow(tensor)
            else:
                arrays[tensor.name] = self._lane.empty(tensor.datatype.dtype, shape)
        self.set_outputs(arrays)
        return arrays

    @property
    def has_late_outputs(self) -> bool:
        """Whether there are outputs that are complete only once the run is done."""
        return bool(self._growing) or any(t.is_shape_tensor for t in self._engine.outputs)

    def grown(self) -> dict[str, DeviceArray]:
        """The outputs whose shapes the run has shown; it must be done."""
        return {name: output.take() for name, output in self._growing.items()}

    def host_outputs(self) -> dict[str, np.ndarray]:
        """Shape tensors that were computed; the run must be done."""
        outputs = [t.name for t in self._engine.outputs if t.is_shape_tensor]
        return {name: self._on_host[name].copy() for name in outputs}

    def _place_on_host(self, tensor: EngineTensor, shape: Shape) -> None:
        values = np.empty(shape, tensor.datatype.dtype)
        self._on_host[tensor.name] = values
        self._context.set_tensor_address(tensor.name, values.ctypes.data)

    def _let_grow(self, tensor: EngineTensor) -> None:
        if tensor.name in self._growing:
            return
        output = GrowingOutput(self._lane, tensor.datatype.dtype)
        allocator = make_allocator(self._library.trt, output)
        self._context.set_output_allocator(tensor.name, allocator)
        self._allocators.append(allocator)
        self._growing[tensor.name] = output
