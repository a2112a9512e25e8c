"""Fills and empties the block tables of sequences. Decides nothing about order or budgets."""

from collections.abc import Iterable

from trivet.backends.llm.scheduling.blocks import BlockPool
from trivet.backends.llm.scheduling.sequence import Sequence


class BlockTables:
    """The one writer of `block_ids`, `block_keys` and `num_published` of sequences."""

    def __init__(self, pool: BlockPool, *, enable_prefix_caching: bool) -> None:
        self._pool = pool
        self._block_size = pool.block_size
        self._caches = enable_prefix_caching

    def reserve(self, sequence: Sequence, *, num_spare: int) -> bool:
        """Give blocks for all known tokens, from the prefix cache as far as it has them.

        False, and nothing is changed, unless `num_spare` blocks stay available. Sets
        `num_computed` to the tokens found in the cache.
        """
        hits = self._cached_blocks(sequence)
        num_new = -(-len(sequence.token_ids) // self._block_size) - len(hits)
        num_idle = sum(self._pool.references(block_id) == 0 for block_id in hits)
        if num_new + num_idle + num_spare > self._pool.num_available:
            return False
        self._pool.touch(hits)  # before allocating, which might evict them
        new = self._pool.allocate(num_new)
        assert new is not None, "the pool has fewer blocks than it said"
        sequence.block_ids = hits + new
        sequence.num_published = len(hits)
        sequence.num_computed = len(hits) * self._block_size
        return True

    def grow(self, sequence: Sequence) -> bool:
        """One block more; False if the pool has none."""
        block_ids = self._pool.allocate(1)
        if block_ids is None:
            return False
        sequence.block_ids += block_ids
        return True

    def publish(self, sequence: Sequence, num_computed: int) -> None:
        """Offer the blocks that have become full with so many tokens to the prefix cache."""
        num_full = num_computed // self._block_size
        if self._caches:
            self._extend_keys(sequence, num_full)
            for index in range(sequence.num_published, num_full):
                self._pool.publish(sequence.block_ids[index], sequence.block_keys[index])
        sequence.num_published = num_full

    def release(self, sequence: Sequence) -> None:
        """Take the table away; published blocks stay findable until they are evicted."""
        self._pool.release(sequence.block_ids)
        sequence.block_ids = []
        sequence.num_computed = 0

    def forget(self, sequences: Iterable[Sequence]) -> None:
        """Nothing is cached any more, also for those of the sequences that wait."""
        self._pool.forget()
        for sequence in sequences:
            if not sequence.block_ids:
                sequence.block_keys.clear()

    def _cached_blocks(self, sequence: Sequence) -> list[int]:
        """Known blocks before the last token, which is always computed: its logits are needed."""
        if not self._caches or sequence.needs_prompt_logprobs:
            return []
        num_blocks = (len(sequence.token_ids) - 1) // self._block_size
        self._extend_keys(sequence, num_blocks)
        return self._pool.lookup(sequence.block_keys[:num_blocks])

    def _extend_keys(self, sequence: Sequence, num_blocks: int) -> None:
        self._pool.prefix.extend(
            sequence.block_keys, sequence.token_ids, num_blocks, sequence.cache_salt
        )
