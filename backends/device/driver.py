"""What is needed of a GPU's runtime: the seam between our logic and CUDA.

`cuda.py` is the real one, over libcudart. Tests have a twin whose devices are host memory and whose
streams run nothing before somebody waits, so that a wait which is missing shows in the values.
"""

from typing import Protocol, runtime_checkable

import numpy as np

from trivet.backends.api import Device, DeviceMemory, Event, Stream


class Graph(Protocol):
    """Work that was captured once and is launched as one."""

    def launch(self, stream: Stream) -> None:
        """Gives it to a stream."""

    def close(self) -> None:
        """Frees it."""


@runtime_checkable
class Gpu(Device, Protocol):
    """One GPU, as backends see it."""

    @property
    def number(self) -> int:
        """Its ordinal."""

    def __hash__(self) -> int:
        """There is one object for each GPU."""

    def activate(self) -> None:
        """Makes it the current one of the calling thread."""

    def new_stream(self) -> Stream:
        """A stream that does not wait for the default one."""

    def allocate(self, size_bytes: int, stream: Stream) -> "Allocation":
        """Memory that is there for `stream` and given back in its order. Raises OutOfMemory."""

    def new_pinned(self, size_bytes: int) -> np.ndarray:
        """Host memory that the GPU reads and writes by itself: bytes."""

    def free_bytes(self) -> "MemoryState":
        """How much memory there is and is free."""

    def open_ipc(self, handle: bytes) -> int:
        """The address of another process's memory here. Raises DeviceFailed."""

    def close_ipc(self, address: int) -> None:
        """Lets go of it."""

    def allocated_bytes(self, address: int) -> int:
        """How much memory there is from an address to the end of its allocation."""

    def begin_capture(self, stream: Stream) -> None:
        """What this thread gives to the stream from now on is noted down, not done."""

    def end_capture(self, stream: Stream) -> Graph:
        """What was noted down. Raises DeviceFailed where something in it cannot be captured."""


class Allocation(Protocol):
    """Fresh memory: where it is, and what keeps it."""

    @property
    def address(self) -> int:
        """Its first byte."""

    @property
    def memory(self) -> DeviceMemory:
        """Holds it."""


class MemoryState(Protocol):
    """A GPU's memory at a moment."""

    @property
    def free(self) -> int:
        """Bytes."""

    @property
    def total(self) -> int:
        """Bytes."""


__all__ = ["Allocation", "Device", "Event", "Gpu", "Graph", "MemoryState", "Stream"]
