"""A GPU made of host memory: streams run nothing before somebody waits, freed memory is spoilt."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trivet.backends.api import DeviceArray, DeviceMemory, Event, Stream
from trivet.backends.device.errors import OUT_OF_MEMORY, raise_for

SPOILT = 0xDD
ALIGNMENT = 256
"""As cudaMalloc's."""


class TwinEvent:
    """A point in a twin stream's work."""

    def __init__(self, stream: "TwinStream") -> None:
        self.stream = stream
        self.happened = False

    def wait(self) -> None:
        self.stream.device.num_waits += 1
        self.stream.run_until(self)

    def is_done(self) -> bool:
        return self.happened


class TwinStream:
    """Work that is done in order, but not before somebody waits for it."""

    def __init__(self, device: "TwinDevice", handle: int) -> None:
        self.device = device
        self._handle = handle
        self.work: deque[Callable[[], None]] = deque()
        self.captured: list[Callable[[], None]] | None = None

    @property
    def handle(self) -> int:
        return self._handle

    def give(self, task: Callable[[], None]) -> None:
        (self.work if self.captured is None else self.captured).append(task)

    def copy(self, target: int, source: int, size_bytes: int) -> None:
        if size_bytes:
            self.give(lambda: bytes_at(target, size_bytes).__setitem__(
                slice(None), bytes_at(source, size_bytes)))  # fmt: skip

    def record(self, *, blocks: bool = True) -> TwinEvent:
        event = TwinEvent(self)
        self.give(lambda: setattr(event, "happened", True))
        return event

    def wait_for(self, event: Event) -> None:
        assert isinstance(event, TwinEvent)
        self.give(lambda: event.stream.run_until(event))

    def run_until(self, event: TwinEvent) -> None:
        with self.device.turn:
            while not event.happened:
                self.work.popleft()()

    def run_all(self) -> None:
        with self.device.turn:
            while self.work:
                self.work.popleft()()


@dataclass
class TwinAllocation:
    address: int
    memory: DeviceMemory


@dataclass
class TwinState:
    free: int
    total: int


class TwinGraph:
    def __init__(self, tasks: list[Callable[[], None]]) -> None:
        self.tasks = tasks
        self.num_launches = 0
        self.is_closed = False

    def launch(self, stream: Stream) -> None:
        assert isinstance(stream, TwinStream)
        self.num_launches += 1
        for task in self.tasks:
            stream.give(task)

    def close(self) -> None:
        self.is_closed = True


class TwinDevice:
    """A Gpu of `total_bytes`. Its arrays say that they are in host memory, so torch reads them."""

    def __init__(self, number: int = 0, total_bytes: int = 1 << 24) -> None:
        self._number = number
        self.total_bytes = total_bytes
        self.used_bytes = 0
        self.num_waits = 0
        self.num_pinned = 0
        self.streams: dict[int, TwinStream] = {}
        self.turn = threading.RLock()
        """One thread at a time does work, its own or what it waits for."""
        self.graphs: list[TwinGraph] = []
        self.default = self.new_stream()
        self.shared: dict[bytes, np.ndarray] = {}
        """Other processes' memory, by handle."""
        self.closed: list[int] = []

    @property
    def number(self) -> int:
        return self._number

    @property
    def dlpack(self) -> tuple[int, int]:
        return (1, self._number)

    compute_capability = (9, 0)

    def activate(self) -> None:
        pass

    def new_stream(self) -> TwinStream:
        # Numbers 0 to 2 mean something in DLPack.
        handle = 100 + len(self.streams)
        self.streams[handle] = TwinStream(self, handle)
        return self.streams[handle]

    def stream_of(self, handle: int) -> TwinStream:
        return self.streams.get(handle, self.default)

    def allocate(self, size_bytes: int, stream: Stream) -> TwinAllocation:
        assert isinstance(stream, TwinStream)
        if self.used_bytes + size_bytes > self.total_bytes:
            raise_for("allocating", OUT_OF_MEMORY, "cudaErrorMemoryAllocation")
        whole = np.full(size_bytes + ALIGNMENT, SPOILT, np.uint8)
        start = -whole.ctypes.data % ALIGNMENT
        block = whole[start : start + size_bytes]
        self.used_bytes += size_bytes
        memory = DeviceMemory(self, stream, lambda: stream.give(lambda: self._free(block)))
        return TwinAllocation(block.ctypes.data, memory)

    def _free(self, block: np.ndarray) -> None:
        block[:] = SPOILT
        self.used_bytes -= block.nbytes

    def new_pinned(self, size_bytes: int) -> np.ndarray:
        self.num_pinned += 1
        return np.full(size_bytes, SPOILT, np.uint8)

    def free_bytes(self) -> TwinState:
        return TwinState(self.total_bytes - self.used_bytes, self.total_bytes)

    def open_ipc(self, handle: bytes) -> int:
        if handle not in self.shared:
            raise_for("cudaIpcOpenMemHandle", 1, "cudaErrorInvalidValue")
        return int(self.shared[handle].ctypes.data)

    def close_ipc(self, address: int) -> None:
        self.closed.append(address)

    def allocated_bytes(self, address: int) -> int:
        found = [b for b in self.shared.values() if b.ctypes.data == address]
        return int(found[0].nbytes)

    def begin_capture(self, stream: Stream) -> None:
        assert isinstance(stream, TwinStream)
        stream.captured = []

    def end_capture(self, stream: Stream) -> TwinGraph:
        assert isinstance(stream, TwinStream)
        tasks, stream.captured = stream.captured or [], None
        self.graphs.append(TwinGraph(tasks))
        return self.graphs[-1]

    def fetch(self, array: DeviceArray) -> np.ndarray:
        if array.ready is not None:
            array.ready.wait()
        raw = bytes_at(array.address, array.nbytes).copy()
        return raw.view(array.dtype).reshape(array.shape)


class _Raw:
    def __init__(self, address: int, size_bytes: int) -> None:
        self.__array_interface__ = {
            "data": (address, False), "shape": (size_bytes,), "typestr": "|u1", "version": 3,
        }  # fmt: skip


def bytes_at(address: int, size_bytes: int) -> np.ndarray:
    return np.asarray(_Raw(address, size_bytes))
