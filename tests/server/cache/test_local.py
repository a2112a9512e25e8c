"""The local cache: the least recently used goes first, what is kept is nobody else's memory."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.backends.api import Tensor
from trivet.server.cache.entry import Entry
from trivet.server.cache.local import OVERHEAD_BYTES, LocalCache


def entry_of(*values: float) -> Entry:
    return Entry([Tensor.of("OUT", np.array(values, np.float64))], {})


def look(cache: LocalCache, key: bytes) -> list[float] | None:
    found: list[Entry | None] = []
    cache.find(key, found.append)
    (entry,) = found
    return None if entry is None else entry.outputs[0].numpy().tolist()


def cache_of(num_entries: int) -> LocalCache:
    """Room for so many entries of one value."""
    return LocalCache(num_entries * (OVERHEAD_BYTES + 8))


def test_what_was_kept_is_found() -> None:
    cache = cache_of(2)
    cache.keep(b"a", entry_of(1))
    assert (look(cache, b"a"), look(cache, b"b")) == ([1], None)


def test_the_least_recently_used_makes_room() -> None:
    cache = cache_of(2)
    for key, value in ((b"a", 1), (b"b", 2)):
        cache.keep(key, entry_of(value))
    look(cache, b"a")
    cache.keep(b"c", entry_of(3))
    assert [look(cache, key) for key in (b"a", b"b", b"c")] == [[1], None, [3]]
    assert cache.statistics.num_evictions == 1


def test_what_is_larger_than_the_cache_is_not_kept_and_costs_nobody_a_place() -> None:
    cache = cache_of(2)
    cache.keep(b"a", entry_of(1))
    cache.keep(b"b", entry_of(*range(1000)))
    assert (look(cache, b"a"), look(cache, b"b"), len(cache)) == ([1], None, 1)


def test_later_writes_to_the_model_s_memory_do_not_reach_the_cache() -> None:
    values = np.ones((4, 1))
    texts = np.array([b"x"], dtype=object)
    cache = LocalCache(10_000)
    cache.keep(b"a", Entry([Tensor.of("OUT", values[1:2]), Tensor.of("TEXT", texts)], {"k": 1}))
    values += 1
    texts[0] = b"y"
    found: list[Entry | None] = []
    cache.find(b"a", found.append)
    assert found[0] is not None
    number, text = (tensor.numpy() for tensor in found[0].outputs)
    assert (number.tolist(), text.tolist(), found[0].parameters) == ([[1]], [b"x"], {"k": 1})
    with pytest.raises(ValueError, match="read-only"):
        number += 1


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 200)), max_size=60))
def test_the_size_is_never_exceeded_and_counted_right(kept: list[tuple[int, int]]) -> None:
    cache = LocalCache(4096)
    for key, length in kept:
        cache.keep(bytes([key]), entry_of(*range(length)))
        assert 0 <= cache.utilization <= 1
    sizes = [look(cache, bytes([key])) for key in range(9)]
    used = sum(8 * len(values) + OVERHEAD_BYTES for values in sizes if values is not None)
    assert cache.utilization == used / 4096
    asyncio.run(cache.close())
    assert (len(cache), cache.utilization) == (0, 0)
