"""GPUs through CUDA's runtime: the real side of `driver.py`."""

import ctypes
import weakref
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache

import numpy as np

from trivet.backends.api import DeviceArray, DeviceLost, DeviceMemory, Event, LoadFailed, Stream
from trivet.backends.device.errors import DeviceFailed, raise_for
from trivet.backends.device.library import CudaLibrary, IpcHandle, load_library

DLPACK_CUDA = 2
KEPT_BYTES = 1 << 30
_RELEASE_THRESHOLD = 4
_NOT_READY = 600
_NON_BLOCKING, _NO_TIMING = 1, 2
"""Of streams, of events; an event whose waiters sleep has 1 beside it."""
_COPY_BY_ADDRESS = 4
_PORTABLE = 1
_THREAD_LOCAL = 1
_LAZY_PEER_ACCESS = 1
_MAJOR, _MINOR = 75, 76


class CudaEvent:
    """A cudaEvent_t."""

    __slots__ = ("__weakref__", "_cuda", "handle")

    def __init__(self, cuda: CudaLibrary, handle: int) -> None:
        self._cuda = cuda
        self.handle = handle
        weakref.finalize(self, cuda.code, "cudaEventDestroy", handle).atexit = False

    def wait(self) -> None:
        self._cuda.call("cudaEventSynchronize", self.handle)

    def is_done(self) -> bool:
        code = self._cuda.code("cudaEventQuery", self.handle)
        if code not in (0, _NOT_READY):
            raise_for("cudaEventQuery", code, self._cuda.error_name(code))
        return code == 0


class CudaStream:
    """A cudaStream_t: our own, or a framework's by its number."""

    __slots__ = ("__weakref__", "_cuda", "_device_number", "_handle")

    def __init__(self, cuda: CudaLibrary, device_number: int, handle: int, *, owned: bool) -> None:
        self._cuda = cuda
        self._device_number = device_number
        self._handle = handle
        if owned:
            weakref.finalize(self, cuda.code, "cudaStreamDestroy", handle).atexit = False

    @property
    def handle(self) -> int:
        return self._handle

    def copy(self, target: int, source: int, size_bytes: int) -> None:
        if size_bytes:
            self._cuda.call(
                "cudaMemcpyAsync", target, source, size_bytes, _COPY_BY_ADDRESS, self._handle
            )

    def record(self, *, blocks: bool = True) -> CudaEvent:
        # An event belongs to the device that is current when it is made.
        self._cuda.call("cudaSetDevice", self._device_number)
        handle = c_void_p()
        self._cuda.call("cudaEventCreateWithFlags", byref(handle), _NO_TIMING | blocks)
        event = CudaEvent(self._cuda, handle.value or 0)
        self._cuda.call("cudaEventRecord", event.handle, self._handle)
        return event

    def wait_for(self, event: Event) -> None:
        assert isinstance(event, CudaEvent), "events of one runtime only"
        self._cuda.call("cudaStreamWaitEvent", self._handle, event.handle, 0)


class CudaGraph:
    """An instantiated cudaGraph_t."""

    def __init__(self, cuda: CudaLibrary, executable: int) -> None:
        self._cuda = cuda
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        self._cuda.call("cudaGraphLaunch", self._executable, stream.handle)

    def close(self) -> None:
        self._cuda.code("cudaGraphExecDestroy", self._executable)


@dataclass(frozen=True, slots=True)
class CudaAllocation:
    """See `Allocation`."""

    address: int
    memory: DeviceMemory


@dataclass(frozen=True, slots=True)
class CudaMemoryState:
    """See `MemoryState`."""

    free: int
    total: int


class CudaGpu:
    """One GPU. Threads may share it; each activates it before its first call."""

    def __init__(self, cuda: CudaLibrary, number: int) -> None:
        self._cuda = cuda
        self._number = number

    @property
    def number(self) -> int:
        return self._number

    @property
    def dlpack(self) -> tuple[int, int]:
        return (DLPACK_CUDA, self._number)

    @property
    def compute_capability(self) -> tuple[int, int]:
        """(9, 0) for an H100."""
        values = (c_int(), c_int())
        for value, attribute in zip(values, (_MAJOR, _MINOR), strict=True):
            self._cuda.call("cudaDeviceGetAttribute", byref(value), attribute, self._number)
        return (values[0].value, values[1].value)

    def activate(self) -> None:
        self._cuda.call("cudaSetDevice", self._number)

    def keep_pool(self) -> None:
        """Memory that is given back stays at hand, up to a limit: else each wait for the GPU hands
        it to the driver, and each batch asks for it anew."""
        pool, kept = c_void_p(), c_uint64(KEPT_BYTES)
        self._cuda.call("cudaDeviceGetDefaultMemPool", byref(pool), self._number)
        self._cuda.call("cudaMemPoolSetAttribute", pool, _RELEASE_THRESHOLD, byref(kept))

    def new_stream(self) -> CudaStream:
        self.activate()
        handle = c_void_p()
        self._cuda.call("cudaStreamCreateWithFlags", byref(handle), _NON_BLOCKING)
        return CudaStream(self._cuda, self._number, handle.value or 0, owned=True)

    def stream_of(self, handle: int) -> CudaStream:
        return CudaStream(self._cuda, self._number, handle, owned=False)

    def allocate(self, size_bytes: int, stream: Stream) -> CudaAllocation:
        pointer = c_void_p()
        self._cuda.call("cudaMallocAsync", byref(pointer), size_bytes, stream.handle)
        address = pointer.value or 0
        return CudaAllocation(
            address,
            # The stream is held by what releases the memory in its order.
            DeviceMemory(
                self, stream, lambda: self._forget("cudaFreeAsync", address, stream.handle)
            ),
        )

    def new_pinned(self, size_bytes: int) -> np.ndarray:
        pointer = c_void_p()
        self._cuda.call("cudaHostAlloc", byref(pointer), size_bytes, _PORTABLE)
        # Never given back: blocks stay in their pool for as long as the process lives.
        block = (ctypes.c_uint8 * size_bytes).from_address(pointer.value or 0)
        return np.ctypeslib.as_array(block)

    def free_bytes(self) -> CudaMemoryState:
        self.activate()
        free, total = c_size_t(), c_size_t()
        self._cuda.call("cudaMemGetInfo", byref(free), byref(total))
        return CudaMemoryState(free.value, total.value)

    def begin_capture(self, stream: Stream) -> None:
        self._cuda.call("cudaStreamBeginCapture", stream.handle, _THREAD_LOCAL)

    def end_capture(self, stream: Stream) -> CudaGraph:
        graph, executable = c_void_p(), c_void_p()
        self._cuda.call("cudaStreamEndCapture", stream.handle, byref(graph))
        try:
            self._cuda.call("cudaGraphInstantiateWithFlags", byref(executable), graph, 0)
        finally:
            self._cuda.code("cudaGraphDestroy", graph)
        return CudaGraph(self._cuda, executable.value or 0)

    def fetch(self, array: DeviceArray) -> np.ndarray:
        stream = self.new_stream()
        if array.ready is not None:
            stream.wait_for(array.ready)
        host = np.empty(array.shape, array.dtype)
        stream.copy(host.ctypes.data, array.address, array.nbytes)
        stream.record().wait()
        return host

    def open_ipc(self, handle: bytes) -> int:
        """The address of another process's memory. Raises DeviceFailed."""
        self.activate()
        pointer = c_void_p()
        given = IpcHandle.from_buffer_copy(handle)
        self._cuda.call("cudaIpcOpenMemHandle", byref(pointer), given, _LAZY_PEER_ACCESS)
        return pointer.value or 0

    def close_ipc(self, address: int) -> None:
        """Lets go of it."""
        self._forget("cudaIpcCloseMemHandle", address)

    def allocated_bytes(self, address: int) -> int:
        base, size = c_void_p(), c_size_t()
        self._cuda.call_driver(
            "cuMemGetAddressRange_v2", byref(base), byref(size), c_void_p(address)
        )
        return (base.value or 0) + size.value - address

    def _forget(self, name: str, *arguments: int) -> None:
        # Finalisers run on any thread, and there is nobody to tell of a failure: after a fault of
        # the GPU everything fails, and the process is about to end.
        if self._cuda.code("cudaSetDevice", self._number) == 0:
            self._cuda.code(name, *arguments)


def count_gpus(cuda: CudaLibrary) -> int:
    """Raises DeviceFailed where there is no driver or no GPU."""
    count = c_int()
    cuda.call("cudaGetDeviceCount", byref(count))
    return count.value


@cache
def open_gpu(number: int, library: str = "") -> CudaGpu:
    """A GPU by its ordinal. Raises LoadFailed with what is missing."""
    cuda = load_library(library)
    try:
        count = count_gpus(cuda)
        if number >= count:
            raise LoadFailed(
                f"GPU {number} is asked for, but there are {count}, numbered from 0 "
                "(instance_group.gpus; CUDA_VISIBLE_DEVICES hides some)"
            )
        gpu = CudaGpu(cuda, number)
        gpu.activate()
        gpu.keep_pool()
    except (DeviceFailed, DeviceLost) as error:
        raise LoadFailed(f"GPU {number} cannot be used: {error.message}") from error
    return gpu
