"""Shared memory for tensors too large for a frame: who may write where, and until when.

    writer  take ──write──┐                              ┌── give_back ── take …
    reader                └─ lease ── arrays live … die ─┘

A region is an anonymous file, mapped by both ends, its descriptor passed once. The writer fills it
and does not touch it again before the reader gives it back, which happens by itself when the last
array on it is collected. So no output is copied out and no input changes under a model that keeps
it, and a region whose pages are in place already serves the next batch.
"""

import fcntl
import mmap
import os
import threading
import weakref
from collections import deque

import numpy as np

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_SMALLEST_BYTES = 256 << 10
_MAX_FREE_REGIONS = 4


class Region:
    """A mapped stretch of shared memory; unmapped when the last array on it is gone."""

    __slots__ = ("id", "mapping", "size_bytes")

    def __init__(self, region_id: int, fd: int, size_bytes: int) -> None:
        self.id = region_id
        self.size_bytes = size_bytes
        # Populated at once: a page fault per 4 KiB costs more than the copy that follows.
        self.mapping = mmap.mmap(fd, size_bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)

    def bytes(self, size_bytes: int) -> np.ndarray:
        """A new root array on the first bytes; views on it keep it, and so the region, alive."""
        return np.frombuffer(self.mapping, dtype=np.uint8, count=size_bytes)


class RegionWriter:
    """The regions that this end writes. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next_id = 0
        self._free: list[Region] = []
        self._lent: dict[int, Region] = {}
        self._dropped: list[int] = []

    def take(self, size_bytes: int) -> tuple[Region, int | None]:
        """A region for so many bytes, and its descriptor (the caller's) when it is a new one."""
        with self._lock:
            fitting = [region for region in self._free if region.size_bytes >= size_bytes]
            if fitting:
                region = min(fitting, key=lambda each: each.size_bytes)
                self._free.remove(region)
                self._lent[region.id] = region
                return region, None
            self._next_id += 1
            region_id = self._next_id
        capacity = max(_SMALLEST_BYTES, 1 << (size_bytes - 1).bit_length())
        fd = _create_file(capacity)
        region = Region(region_id, fd, capacity)
        with self._lock:
            self._lent[region_id] = region
        return region, fd

    def give_back(self, region_ids: list[int]) -> None:
        """The reader has no array left on these."""
        with self._lock:
            for region_id in region_ids:
                self._free.append(self._lent.pop(region_id))
            self._free.sort(key=lambda each: each.size_bytes)
            while len(self._free) > _MAX_FREE_REGIONS:
                self._dropped.append(self._free.pop(0).id)

    def take_back(self, region: Region, *, is_new: bool) -> None:
        """The reader was not told of it: a new one goes, as nobody there has mapped it."""
        if is_new:
            with self._lock:
                del self._lent[region.id]
        else:
            self.give_back([region.id])

    def take_dropped(self) -> list[int]:
        """Regions given up since the last call: the reader should unmap them."""
        if not self._dropped:
            return []
        with self._lock:
            dropped, self._dropped = self._dropped, []
        return dropped


class RegionReader:
    """The regions that the other end writes. Any thread may call."""

    def __init__(self) -> None:
        self._regions: dict[int, Region] = {}
        self._leases: dict[int, weakref.ref[np.ndarray]] = {}
        # Appended to by the garbage collector in whichever thread it runs: no lock may be taken.
        self._released: deque[int] = deque()

    def map(self, region_id: int, fd: int) -> None:
        """Maps a new region and closes the descriptor. Raises ValueError if it could shrink.

        An unsealed file could be cut short by the other end, and reading past its end is a bus
        error that would take this process down.
        """
        try:
            if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
                raise ValueError("a shared memory region is not sealed")
            self._regions[region_id] = Region(region_id, fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)

    def lease(self, region_id: int, size_bytes: int) -> np.ndarray:
        """The region's first bytes, its until the last view on them is collected."""
        root = self._regions[region_id].bytes(size_bytes)
        released = self._released

        def release(_: object) -> None:
            released.append(region_id)

        self._leases[region_id] = weakref.ref(root, release)
        return root

    def take_released(self, at_most: int | None = None) -> list[int]:
        """Regions that no array uses any more, since the last call; the writer wants to know."""
        released: list[int] = []
        while self._released and len(released) != at_most:
            released.append(self._released.popleft())
        return released

    def put_back(self, released: list[int]) -> None:
        """The writer could not be told: the next `take_released` has them again."""
        self._released.extend(released)

    def drop(self, region_ids: list[int]) -> None:
        for region_id in region_ids:
            self._regions.pop(region_id, None)
            self._leases.pop(region_id, None)


def _create_file(size_bytes: int) -> int:
    fd = os.memfd_create("trivet-tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        # Memory is reserved now: running out is an error here, not a bus error while writing.
        os.posix_fallocate(fd, 0, size_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd
