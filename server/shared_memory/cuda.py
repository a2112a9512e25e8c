"""CUDA shared memory that clients register: tensors lie on the GPU before the request comes.

Handles are opened through CUDA's runtime (`backends/device`), so that no framework is needed.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from trivet.backends.api import (
    AlreadyExists,
    DataType,
    DeviceArray,
    DeviceLost,
    DeviceMemory,
    DeviceTensor,
    InvalidRequest,
    LoadFailed,
    NotFound,
    Shape,
    Stream,
    Tensor,
)
from trivet.backends.device.cuda import open_gpu
from trivet.backends.device.driver import Gpu
from trivet.backends.device.errors import DeviceFailed
from trivet.server.shared_memory.bounds import check_room, check_slice

HANDLE_BYTES = 64
"""Of a cudaIpcMemHandle_t."""


@dataclass(frozen=True, slots=True)
class CudaRegion:
    """Memory of a client's on a GPU, under the name that the client gave it."""

    name: str
    device_id: int
    byte_size: int


@dataclass(slots=True)
class _Opened:
    region: CudaRegion
    gpu: Gpu
    stream: Stream
    address: int
    memory: DeviceMemory


class CudaRegions:
    """The registered regions. The event loop owns it.

    Tensors on a region hold it: if it is unregistered meanwhile, it is closed behind the last one.
    """

    def __init__(self, gpu_of: Callable[[int], Gpu] = open_gpu) -> None:
        self._gpu_of = gpu_of
        self._opened: dict[str, _Opened] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._opened

    def register(self, name: str, raw_handle: bytes, device_id: int, byte_size: int) -> None:
        """Opens a handle. Raises InvalidRequest, AlreadyExists."""
        if name in self._opened:
            raise AlreadyExists(f"shared memory region '{name}' already in manager")
        where = f"failed to register CUDA shared memory region '{name}'"
        if len(raw_handle) != HANDLE_BYTES:
            raise InvalidRequest(
                f"{where}: raw_handle has {len(raw_handle)} bytes, a cudaIpcMemHandle_t has "
                f"{HANDLE_BYTES}"
            )
        if byte_size <= 0 or device_id < 0:
            raise InvalidRequest(
                f"{where}: byte_size {byte_size} must be positive and device_id {device_id} a GPU"
            )
        try:
            self._opened[name] = self._open(CudaRegion(name, device_id, byte_size), raw_handle)
        except (LoadFailed, DeviceFailed, DeviceLost) as error:
            raise InvalidRequest(f"{where}: {error.message}") from None

    def unregister(self, name: str | None) -> None:
        """Forgets one region, or all for None. An unknown name is no error, as in Triton."""
        for each in [name] if name is not None else list(self._opened):
            self._opened.pop(each, None)

    def status(self, name: str | None) -> list[CudaRegion]:
        """One region, or all for None. Raises NotFound."""
        if name is None:
            return [opened.region for opened in self._opened.values()]
        if name not in self._opened:
            raise NotFound(f"Unable to find cuda shared memory region: '{name}'")
        return [self._opened[name].region]

    def tensor(
        self, region: str, offset: int, byte_size: int, name: str, datatype: DataType, shape: Shape
    ) -> Tensor:
        """A tensor on a region's memory, without a copy. Raises InvalidRequest."""
        opened = self._opened[region]
        if datatype is DataType.BYTES:
            raise InvalidRequest(
                f"input '{name}' is BYTES, which cannot be in CUDA shared memory region '{region}'"
            )
        expected = prod(shape) * datatype.size
        if byte_size != expected:
            raise InvalidRequest(
                f"input byte size mismatch for input '{name}' in region '{region}'. Expected "
                f"{expected}, got {byte_size}"
            )
        address = _locate(opened, offset, byte_size)
        if address % datatype.size:
            raise InvalidRequest(
                f"input '{name}' begins at byte {offset} of region '{region}', which is no "
                f"multiple of its elements' {datatype.size} bytes"
            )
        return DeviceTensor(
            name, datatype, DeviceArray(opened.memory, address, datatype.dtype, shape)
        )

    def write(self, region: str, offset: int, tensor: Tensor, max_byte_size: int) -> None:
        """Puts a tensor's values at `offset` of a region. Raises InvalidRequest."""
        opened = self._opened[region]
        check_room(region, max_byte_size, tensor.nbytes)
        target = _locate(opened, offset, max_byte_size)
        opened.gpu.activate()
        array = tensor.device
        if array is not None and array.memory.device.dlpack == opened.gpu.dlpack:
            if array.ready is not None:
                opened.stream.wait_for(array.ready)
            source = array.address
        else:
            host = np.frombuffer(tensor.raw(), np.uint8)
            source = host.ctypes.data
        opened.stream.copy(target, source, tensor.nbytes)
        # The values are there when the answer is.
        opened.stream.record().wait()

    def _open(self, region: CudaRegion, raw_handle: bytes) -> _Opened:
        gpu = self._gpu_of(region.device_id)
        address = gpu.open_ipc(raw_handle)
        held_bytes = gpu.allocated_bytes(address)
        if region.byte_size > held_bytes:
            gpu.close_ipc(address)
            raise InvalidRequest(
                f"failed to register CUDA shared memory region '{region.name}': byte_size "
                f"{region.byte_size} is more than the {held_bytes} bytes that the handle is for"
            )
        stream = gpu.new_stream()

        def close() -> None:
            # Not here: whoever lets go of the last tensor must not wait for models that read it.
            threading.Thread(target=_close, args=(gpu, stream, address), daemon=True).start()

        return _Opened(region, gpu, stream, address, DeviceMemory(gpu, stream, close))


def _close(gpu: Gpu, stream: Stream, address: int) -> None:
    try:
        gpu.activate()
        stream.record().wait()
    finally:
        gpu.close_ipc(address)


def _locate(opened: _Opened, offset: int, byte_size: int) -> int:
    check_slice(opened.region.name, opened.region.byte_size, offset, byte_size)
    return opened.address + offset
