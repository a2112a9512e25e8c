"""Who holds which block of the key/value cache. Knows ids and counts, never memory.

free ──allocate──► used ──release──► free        a block that was never published
                    ▲ └───release──► cached ──┐  a published one keeps its content
                    └─────touch────────┘      └─allocate (least recently used first)──► used
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from trivet.backends.api.errors import InvalidConfig
from trivet.backends.llm.scheduling.prefix import BlockKey, PrefixIndex

NULL_BLOCK = 0
"""Never handed out: padding rows write into it."""


@dataclass(frozen=True, slots=True)
class BlockStats:
    """Numbers of blocks; total = free + used + cached, the null block not counted."""

    total: int
    free: int
    used: int
    cached: int


class BlockPool:
    """Block ids 1 … num_blocks - 1 with reference counts. Owned by the engine's thread."""

    def __init__(
        self, num_blocks: int, block_size: int, *, prefix: PrefixIndex | None = None
    ) -> None:
        if num_blocks < 2 or block_size < 1:
            raise InvalidConfig(
                f"a block pool needs at least 2 blocks (one of them is the null block) of at least "
                f"1 token; got num_blocks {num_blocks}, block_size {block_size}"
            )
        self.block_size = block_size
        self.num_usable = num_blocks - 1
        self.prefix = prefix or PrefixIndex(block_size)
        self._free = list(range(num_blocks - 1, NULL_BLOCK, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._references = [0] * num_blocks

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` could hand out now: free and cached ones."""
        return len(self._free) + len(self._cached)

    def allocate(self, count: int) -> list[int] | None:
        """Take `count` blocks, each with one reference; None, and nothing taken, if too few.

        Cached blocks are evicted only when no free one is left.
        """
        if count > self.num_available:
            return None
        num_free = min(count, len(self._free))
        taken = [self._free.pop() for _ in range(num_free)]
        taken += [self._evict() for _ in range(count - num_free)]
        for block_id in taken:
            self._references[block_id] = 1
        return taken

    def release(self, block_ids: list[int]) -> None:
        """Give back one reference to each block of a table.

        The last block goes first, so that of a cached prefix the tail is evicted before the head.
        """
        for block_id in reversed(block_ids):
            assert self._references[block_id] > 0, f"block {block_id} released twice"
            self._references[block_id] -= 1
            if self._references[block_id] == 0:
                self._put_away(block_id)

    def touch(self, block_ids: Iterable[int]) -> None:
        """Take one more reference to blocks that `lookup` found."""
        for block_id in block_ids:
            if self._references[block_id] == 0:
                del self._cached[block_id]
            self._references[block_id] += 1

    def lookup(self, keys: Iterable[BlockKey]) -> list[int]:
        """Blocks that hold the longest known run of leading `keys`; takes no reference."""
        return self.prefix.find(keys)

    def publish(self, block_id: int, key: BlockKey) -> bool:
        """Let others find a full block in use; False if another block is known for the key."""
        assert self._references[block_id] > 0, f"block {block_id} published while not in use"
        return self.prefix.add(key, block_id)

    def forget(self) -> None:
        """All cached blocks become free, and so do those in use once they are released."""
        self._free += self._cached
        self._cached.clear()
        self.prefix.clear()

    def references(self, block_id: int) -> int:
        """How many tables hold the block."""
        return self._references[block_id]

    def is_published(self, block_id: int) -> bool:
        """Whether `lookup` can find the block."""
        return block_id in self.prefix

    def stats(self) -> BlockStats:
        """Counts of this moment."""
        free, cached = len(self._free), len(self._cached)
        return BlockStats(self.num_usable, free, self.num_usable - free - cached, cached)

    def _put_away(self, block_id: int) -> None:
        if block_id in self.prefix:
            self._cached[block_id] = None
        else:
            self._free.append(block_id)

    def _evict(self) -> int:
        block_id, _ = self._cached.popitem(last=False)
        self.prefix.remove(block_id)
        return block_id
