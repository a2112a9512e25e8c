"""Pinned host memory on its way to and from a GPU: blocks that go back when nobody sees them."""

import threading
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from trivet.backends.device.driver import Gpu

MIB = 1024 * 1024
POOL_BYTES = 256 * MIB
"""Triton's `--pinned-memory-pool-byte-size`. What does not fit goes through ordinary memory, which
the driver copies once more."""
_LEAST_BYTES = 4096


@dataclass(slots=True)
class PinnedState:
    """For the metrics page."""

    total_bytes: int = 0
    used_bytes: int = 0


class _Lease:
    """Shows numpy a block; once no array on it is left, the block is free again."""

    def __init__(self, block: np.ndarray, size_bytes: int) -> None:
        address = block.__array_interface__["data"][0]
        self.__array_interface__ = {
            "data": (address, False), "shape": (size_bytes,), "typestr": "|u1", "version": 3,
        }  # fmt: skip
        self.block = block


class PinnedPool:
    """Of one GPU. Any thread takes and gives back: pinning takes a millisecond, so blocks stay."""

    def __init__(self, gpu: Gpu, limit_bytes: int = POOL_BYTES) -> None:
        self._gpu = gpu
        self._limit_bytes = limit_bytes
        self._free: dict[int, list[np.ndarray]] = {}
        self._lock = threading.RLock()  # a finaliser may run within `take`
        self.state = PinnedState()

    def take(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        """An array in pinned memory, in ordinary memory where the pool is exhausted."""
        size_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        kept_bytes = max(_LEAST_BYTES, 1 << (size_bytes - 1).bit_length() if size_bytes else 0)
        block = self._block(kept_bytes)
        if block is None:
            return np.empty(shape, dtype)
        lease = _Lease(block, size_bytes)
        weakref.finalize(lease, self._give_back, block).atexit = False
        return np.asarray(lease).view(dtype).reshape(shape)

    def _block(self, size_bytes: int) -> np.ndarray | None:
        with self._lock:
            found = self._free.get(size_bytes)
            if found:
                self.state.used_bytes += size_bytes
                return found.pop()
            if self.state.total_bytes + size_bytes > self._limit_bytes:
                return None
            self.state.total_bytes += size_bytes
            self.state.used_bytes += size_bytes
        return self._gpu.new_pinned(size_bytes)

    def _give_back(self, block: np.ndarray) -> None:
        with self._lock:
            self.state.used_bytes -= block.nbytes
            self._free.setdefault(block.nbytes, []).append(block)
