"""The block pool counts references, keeps published blocks and evicts the oldest of them."""

import pytest

from trivet.backends.api.errors import InvalidConfig
from trivet.backends.llm.scheduling.blocks import NULL_BLOCK, BlockPool, BlockStats
from trivet.backends.llm.scheduling.prefix import BlockKey


def key_of(pool: BlockPool, *token_ids: int) -> BlockKey:
    keys: list[BlockKey] = []
    pool.prefix.extend(keys, list(token_ids), len(token_ids) // pool.block_size, "")
    return keys[-1]


def allocate(pool: BlockPool, count: int) -> list[int]:
    block_ids = pool.allocate(count)
    assert block_ids is not None
    return block_ids


def test_every_block_but_the_null_block_is_handed_out_once() -> None:
    pool = BlockPool(5, 1)
    assert sorted(allocate(pool, 4)) == [1, 2, 3, 4]
    assert NULL_BLOCK == 0


def test_too_many_blocks_are_none_at_all() -> None:
    pool = BlockPool(5, 1)
    allocate(pool, 2)
    assert pool.allocate(3) is None
    assert pool.stats() == BlockStats(total=4, free=2, used=2, cached=0)


def test_an_unpublished_block_is_free_after_its_release() -> None:
    pool = BlockPool(5, 1)
    pool.release(allocate(pool, 3))
    assert pool.stats() == BlockStats(total=4, free=4, used=0, cached=0)


def test_a_published_block_stays_findable_after_its_release() -> None:
    pool = BlockPool(5, 1)
    [block_id] = allocate(pool, 1)
    assert pool.publish(block_id, key_of(pool, 7))
    pool.release([block_id])
    assert pool.lookup([key_of(pool, 7)]) == [block_id]
    assert pool.stats() == BlockStats(total=4, free=3, used=0, cached=1)


def test_a_found_block_is_used_until_all_its_tables_are_released() -> None:
    pool = BlockPool(5, 1)
    table = allocate(pool, 1)
    pool.publish(table[0], key_of(pool, 7))
    pool.touch(table)
    pool.release(table)
    assert pool.references(table[0]) == 1
    assert pool.stats().used == 1
    pool.release(table)
    assert pool.stats() == BlockStats(total=4, free=3, used=0, cached=1)


def test_a_cached_block_that_is_touched_cannot_be_evicted() -> None:
    pool = BlockPool(3, 1)
    table = allocate(pool, 1)
    pool.publish(table[0], key_of(pool, 7))
    pool.release(table)
    pool.touch(table)
    assert pool.allocate(2) is None
    assert pool.num_available == 1


def test_cached_blocks_are_evicted_oldest_first_and_only_when_none_is_free() -> None:
    pool = BlockPool(4, 1)
    old, new = allocate(pool, 1), allocate(pool, 1)
    pool.publish(old[0], key_of(pool, 1))
    pool.publish(new[0], key_of(pool, 2))
    pool.release(old)
    pool.release(new)
    allocate(pool, 1)
    assert pool.is_published(old[0])
    assert pool.is_published(new[0])
    assert allocate(pool, 1) == old
    assert pool.lookup([key_of(pool, 1)]) == []
    assert pool.lookup([key_of(pool, 2)]) == new


def test_the_tail_of_a_released_table_is_evicted_before_its_head() -> None:
    pool = BlockPool(4, 1)
    table = allocate(pool, 3)
    for length, block_id in enumerate(table, start=1):
        pool.publish(block_id, key_of(pool, *range(length)))
    pool.release(table)
    assert allocate(pool, 2) == [table[2], table[1]]
    assert pool.is_published(table[0])


def test_a_second_block_of_equal_tokens_is_not_published_and_is_free_after_its_release() -> None:
    pool = BlockPool(4, 1)
    first, second = allocate(pool, 2)
    assert pool.publish(first, key_of(pool, 7))
    assert not pool.publish(second, key_of(pool, 7))
    pool.release([second])
    assert pool.stats() == BlockStats(total=3, free=2, used=1, cached=0)


def test_releasing_a_block_twice_is_our_own_mistake_and_is_noticed() -> None:
    pool = BlockPool(4, 1)
    table = allocate(pool, 1)
    pool.release(table)
    with pytest.raises(AssertionError, match="released twice"):
        pool.release(table)


@pytest.mark.parametrize(("num_blocks", "block_size"), [(1, 16), (8, 0)])
def test_a_pool_without_a_usable_block_is_refused(num_blocks: int, block_size: int) -> None:
    with pytest.raises(InvalidConfig, match=f"num_blocks {num_blocks}, block_size {block_size}"):
        BlockPool(num_blocks, block_size)
