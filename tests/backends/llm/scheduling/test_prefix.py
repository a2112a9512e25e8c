"""The prefix index finds blocks by their tokens and all tokens before, and by nothing else."""

from trivet.backends.llm.scheduling.prefix import BlockKey, PrefixIndex

BLOCK_SIZE = 2


def keys_of(index: PrefixIndex, token_ids: list[int], salt: str = "") -> list[BlockKey]:
    keys: list[BlockKey] = []
    index.extend(keys, token_ids, len(token_ids) // BLOCK_SIZE, salt)
    return keys


def publish(index: PrefixIndex, token_ids: list[int], block_ids: list[int]) -> None:
    for key, block_id in zip(keys_of(index, token_ids), block_ids, strict=True):
        assert index.add(key, block_id)


def test_the_longest_known_prefix_is_found_block_by_block() -> None:
    index = PrefixIndex(BLOCK_SIZE)
    publish(index, [1, 2, 3, 4, 5, 6], [10, 11, 12])
    assert index.find(keys_of(index, [1, 2, 3, 4, 9, 9])) == [10, 11]
    assert index.find(keys_of(index, [9, 9, 3, 4, 5, 6])) == []


def test_equal_blocks_after_different_prefixes_are_different() -> None:
    index = PrefixIndex(BLOCK_SIZE)
    publish(index, [1, 1, 7, 7], [10, 11])
    publish(index, [2, 2, 7, 7], [20, 21])
    assert index.find(keys_of(index, [2, 2, 7, 7])) == [20, 21]


def test_only_equal_salts_share_blocks() -> None:
    index = PrefixIndex(BLOCK_SIZE)
    index.add(keys_of(index, [1, 2], salt="tenant a")[0], 10)
    assert index.find(keys_of(index, [1, 2], salt="tenant a")) == [10]
    assert index.find(keys_of(index, [1, 2], salt="tenant b")) == []
    assert index.find(keys_of(index, [1, 2])) == []


def test_keys_grow_with_the_tokens_and_equal_those_computed_at_once() -> None:
    index = PrefixIndex(BLOCK_SIZE)
    token_ids = [1, 2, 3, 4, 5, 6]
    keys = keys_of(index, token_ids[:2])
    index.extend(keys, token_ids, 3, "")
    index.extend(keys, token_ids, 1, "")
    assert keys == keys_of(index, token_ids)


def test_a_key_keeps_its_first_block() -> None:
    index = PrefixIndex(BLOCK_SIZE)
    publish(index, [1, 2], [10])
    assert not index.add(keys_of(index, [1, 2])[0], 11)
    assert index.find(keys_of(index, [1, 2])) == [10]
    assert 11 not in index


def test_a_removed_block_is_not_found_and_its_key_is_free_again() -> None:
    index = PrefixIndex(BLOCK_SIZE)
    publish(index, [1, 2, 3, 4], [10, 11])
    index.remove(10)
    assert index.find(keys_of(index, [1, 2, 3, 4])) == []
    publish(index, [1, 2], [12])
    assert index.find(keys_of(index, [1, 2, 3, 4])) == [12, 11]


def test_digests_that_collide_are_a_miss_not_a_wrong_hit() -> None:
    index = PrefixIndex(BLOCK_SIZE, digest=lambda content: b"same")
    publish(index, [1, 2], [10])
    assert index.find(keys_of(index, [3, 4])) == []
    assert not index.add(keys_of(index, [3, 4])[0], 11)


def test_another_process_computes_other_digests() -> None:
    first, second = PrefixIndex(BLOCK_SIZE), PrefixIndex(BLOCK_SIZE)
    assert keys_of(first, [1, 2])[0].digest != keys_of(second, [1, 2])[0].digest
