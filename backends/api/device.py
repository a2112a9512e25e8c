"""Memory on a device and the order of the work on it: streams, events, arrays.

Work on a device is given to streams and done later. An array carries the event after which its
values are there, so that whoever takes it lets its own stream wait instead of the host; and memory
is given back only after every stream that reads it. Knows no CUDA: `backends/device` does.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from math import prod
from typing import Any, Protocol

import numpy as np

from trivet.backends.api.dlpack import make_capsule
from trivet.backends.api.errors import BackendFailed

_LEGACY_STREAM, _NO_ORDER = 1, -1
"""DLPack: the default stream (as None), and a consumer that takes care of the order itself."""

_KEPT_USES = 8
"""Readers of a memory that are kept although they may be done: asking costs a call."""


class Event(Protocol):
    """A point in a stream's work."""

    def wait(self) -> None:
        """Holds the calling thread until the work before it is done."""

    def is_done(self) -> bool:
        """Whether it is, without waiting."""


class Stream(Protocol):
    """A queue of work on one device. Work is given to it by one thread at a time."""

    @property
    def handle(self) -> int:
        """What frameworks know it by: a cudaStream_t."""

    def copy(self, target: int, source: int, size_bytes: int) -> None:
        """Copies between addresses, of the device or of pinned host memory, in its turn."""

    def record(self, *, blocks: bool = True) -> Event:
        """The event after all that was given to it so far; a thread that waits for it sleeps if it
        `blocks`, or asks over and over."""

    def wait_for(self, event: Event) -> None:
        """What is given to it from now on runs after the event. The host does not wait."""


class Device(Protocol):
    """One device of the machine."""

    @property
    def dlpack(self) -> tuple[int, int]:
        """Its DLPack type and number: (2, 0) is the first GPU."""

    def stream_of(self, handle: int) -> Stream:
        """The stream that a framework knows by this number."""

    def fetch(self, array: "DeviceArray") -> np.ndarray:
        """A host copy of an array; waits for it."""


class DeviceMemory:
    """A run of bytes on a device, released once nobody holds it and every stream is past it.

    `release` is called on any thread; what it does must take its turn in `stream`, the producer's.
    """

    __slots__ = ("__weakref__", "_lock", "_uses", "device")

    def __init__(self, device: Device, stream: Stream, release: Callable[[], None]) -> None:
        self.device = device
        self._uses: deque[Event] = deque()
        self._lock = threading.Lock()
        weakref.finalize(self, _release, stream, self._uses, release).atexit = False

    def used(self, event: Event) -> None:
        """Another stream reads it until this event."""
        with self._lock:
            # Memory that lives long, such as a client's, is read by very many.
            while len(self._uses) >= _KEPT_USES and self._uses[0].is_done():
                self._uses.popleft()
            self._uses.append(event)


def _release(stream: Stream, uses: deque[Event], release: Callable[[], None]) -> None:
    # A finaliser has nobody to tell of a fault of the device, after which nothing matters there.
    with suppress(BackendFailed):
        for event in uses:
            stream.wait_for(event)
    release()


class DeviceArray:
    """A contiguous array on a device. Treat it as immutable once it has been handed out."""

    __slots__ = ("address", "dtype", "memory", "ready", "shape")

    def __init__(
        self,
        memory: DeviceMemory,
        address: int,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        ready: Event | None = None,
    ) -> None:
        self.memory = memory
        self.address = address
        self.dtype = dtype
        self.shape = shape
        self.ready = ready
        """After which the values are there; None: they are."""

    @property
    def nbytes(self) -> int:
        """The size of its values."""
        return prod(self.shape) * self.dtype.itemsize

    def rows(self, start: int, stop: int) -> "DeviceArray":
        """Some of its rows, on the same memory."""
        row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        shape = (stop - start, *self.shape[1:])
        address = self.address + start * row_bytes
        return DeviceArray(self.memory, address, self.dtype, shape, self.ready)

    def reshape(self, shape: tuple[int, ...]) -> "DeviceArray":
        """The same values in another shape of as many."""
        assert prod(shape) == prod(self.shape), "a reshape keeps the number of elements"
        return DeviceArray(self.memory, self.address, self.dtype, shape, self.ready)

    def numpy(self) -> np.ndarray:
        """A host copy; waits for the device."""
        return self.memory.device.fetch(self)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.memory.device.dlpack

    def __dlpack__(self, *, stream: int | None = None, **_: object) -> object:
        """A capsule for torch, cupy, ONNX Runtime ...; the consumer's `stream` waits for it.

        The capsule holds the memory, not its order: a consumer that reads on another stream tells
        so with `memory.used`.
        """
        if self.ready is not None and stream != _NO_ORDER:
            handle = 0 if stream in (None, _LEGACY_STREAM) else int(stream or 0)
            self.memory.device.stream_of(handle).wait_for(self.ready)
        return make_capsule(self, self.address, self.dtype, self.shape, self.__dlpack_device__())


def join_device_rows(arrays: list[DeviceArray]) -> DeviceArray | None:
    """The array that others are the parts of, if they lie one after another in the same memory."""
    first = arrays[0]
    position, num_rows = first.address, 0
    for array in arrays:
        if array.memory is not first.memory or array.address != position:
            return None
        if array.ready is not first.ready:
            return None
        position += array.nbytes
        num_rows += array.shape[0]
    shape = (num_rows, *first.shape[1:])
    return DeviceArray(first.memory, first.address, first.dtype, shape, first.ready)


class Residence(Enum):
    """Where whoever asks for an output wants it."""

    HOST = "host"
    READY = "ready"
    """On the device, and its values are there when the response is."""
    DEVICE = "device"
    """May stay on the device that made it."""
    BOTH = "both"
    """On the device for one reader, on the host for another."""

    __hash__ = object.__hash__
