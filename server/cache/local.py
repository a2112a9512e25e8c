"""The cache in this process: the most recently used answers, up to a number of bytes."""

import time
from collections import OrderedDict
from dataclasses import dataclass

from trivet.server.cache.entry import Entry, Found, owned

OVERHEAD_BYTES = 512
"""What an entry takes beyond its tensors, roughly."""


@dataclass(slots=True)
class LocalCacheStatistics:
    """Since the server started."""

    num_lookups: int = 0
    num_hits: int = 0
    num_evictions: int = 0
    lookup_ns: int = 0
    insertion_ns: int = 0


class LocalCache:
    """Owned by the event loop."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._used_bytes = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self.statistics = LocalCacheStatistics()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def utilization(self) -> float:
        """The used share of the size."""
        return self._used_bytes / self._size_bytes

    def find(self, key: bytes, found: Found) -> None:
        """Calls `found` at once."""
        started_ns = time.monotonic_ns()
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            self.statistics.num_hits += 1
        self.statistics.num_lookups += 1
        self.statistics.lookup_ns += time.monotonic_ns() - started_ns
        found(entry)

    def keep(self, key: bytes, entry: Entry) -> None:
        """Stores a copy, in place of those that were not asked for longest. What alone is larger
        than the cache is not stored."""
        started_ns = time.monotonic_ns()
        size_bytes = _size(entry)
        if size_bytes > self._size_bytes or key in self._entries:
            return
        while self._used_bytes + size_bytes > self._size_bytes:
            _, old = self._entries.popitem(last=False)
            self._used_bytes -= _size(old)
            self.statistics.num_evictions += 1
        self._entries[key] = owned(entry)
        self._used_bytes += size_bytes
        self.statistics.insertion_ns += time.monotonic_ns() - started_ns

    async def close(self) -> None:
        """Forgets all."""
        self._entries.clear()
        self._used_bytes = 0


def _size(entry: Entry) -> int:
    return entry.nbytes + OVERHEAD_BYTES
