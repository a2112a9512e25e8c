"""Triton kernels over the paged cache: states in, decode in splits, chunks. They know no model.

Keys and values of a layer are [slots, key/value heads, head size]; a block is `BLOCK_SIZE` slots in
a row. In a cache of 8 bits they lie divided by a scale of the layer: it is in the scale of scores,
which the host gives, and a factor of the result. Places that a query does not see are not loaded
either, so that what lies there cannot hurt: zero times infinity would. Powers are of 2, in which
the device computes; sums are float32.

Split decode: Dao et al., Flash-Decoding (2023). Online softmax: Milakov, Gimelshein (2018). Query
heads of a key/value head as rows of one product: Ringlein et al., The Anatomy of a Triton Attention
Kernel (2025).
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
FP8_MAX = tl.constexpr(448.0)
"""Of float8_e4m3fn."""


@triton.jit
def write_states(
    key, value, slot_mapping, keys, values,
    key_token_stride, key_head_stride, value_token_stride, value_head_stride,
    slot_stride, head_stride, key_factor, value_factor,
    NUM_HEADS: tl.constexpr, PADDED_HEADS: tl.constexpr, HEAD_SIZE: tl.constexpr,
    IS_8BIT: tl.constexpr,
):  # fmt: skip
    """One program a token. A negative slot is a row that only fills up a batch."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slot_mapping + token)
    if slot < 0:
        return
    heads = tl.arange(0, PADDED_HEADS)[:, None]
    sizes = tl.arange(0, HEAD_SIZE)[None, :]
    is_head = heads < NUM_HEADS
    place = slot * slot_stride + heads * head_stride + sizes
    states = tl.load(key + token * key_token_stride + heads * key_head_stride + sizes, mask=is_head)
    tl.store(keys + place, _scaled(states, keys, key_factor, IS_8BIT), mask=is_head)
    states = tl.load(
        value + token * value_token_stride + heads * value_head_stride + sizes, mask=is_head
    )
    tl.store(values + place, _scaled(states, values, value_factor, IS_8BIT), mask=is_head)


@triton.jit
def _scaled(states, target, factor, IS_8BIT: tl.constexpr):
    if IS_8BIT:
        states = tl.clamp(states.to(tl.float32) * factor, -FP8_MAX, FP8_MAX)
    return states.to(target.dtype.element_ty)


@triton.jit
def decode_split(
    query, keys, values, block_tables, lengths, query_starts, output, partial, log_sums, scale,
    value_scale, query_token_stride, query_head_stride, slot_stride, head_stride, table_stride,
    NUM_HEADS: tl.constexpr, GROUP: tl.constexpr, PADDED_GROUP: tl.constexpr,
    HEAD_SIZE: tl.constexpr, BLOCK_SIZE: tl.constexpr, WINDOW: tl.constexpr,
    TILE: tl.constexpr, NUM_SPLITS: tl.constexpr,
):  # fmt: skip
    """One program a sequence, key/value head and split, for sequences with one query. A sequence of
    length 0 only fills up a batch: its output is zero."""
    row, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    token = tl.load(query_starts + row).to(tl.int64)
    if tl.load(query_starts + row + 1) - token != 1:
        return
    length = tl.load(lengths + row)
    first_place = tl.maximum(length - WINDOW, 0) if WINDOW > 0 else 0
    first_tile, end_tile = first_place // TILE, tl.cdiv(length, TILE)
    tiles_per_split = tl.cdiv(end_tile - first_tile, NUM_SPLITS)
    begin = first_tile + split * tiles_per_split
    end = tl.minimum(begin + tiles_per_split, end_tile)
    members = tl.arange(0, PADDED_GROUP)
    sizes = tl.arange(0, HEAD_SIZE)
    heads = kv_head * GROUP + members
    is_member = members < GROUP
    place = token * NUM_HEADS + heads
    part = (row * NUM_HEADS + heads) * NUM_SPLITS + split
    if begin >= end:
        if NUM_SPLITS > 1:
            tl.store(log_sums + part, float("-inf"), mask=is_member)
        else:
            nothing = tl.zeros([PADDED_GROUP, HEAD_SIZE], output.dtype.element_ty)
            target = output + place[:, None] * HEAD_SIZE + sizes[None, :]
            tl.store(target, nothing, mask=is_member[:, None])
        return
    asked = tl.load(
        query + token * query_token_stride + heads[:, None] * query_head_stride + sizes[None, :],
        mask=is_member[:, None],
        other=0.0,
    )
    highest = tl.full([PADDED_GROUP], float("-inf"), tl.float32)
    total = tl.zeros([PADDED_GROUP], tl.float32)
    summed = tl.zeros([PADDED_GROUP, HEAD_SIZE], tl.float32)
    states_of_head = kv_head * head_stride
    for tile in range(begin, end):
        places = tile * TILE + tl.arange(0, TILE)
        is_seen = (places >= first_place) & (places < length)
        highest, total, summed = _attend_tile(
            asked, scale, keys + states_of_head, values + states_of_head, slot_stride,
            block_tables + row * table_stride, places, is_seen, is_seen[None, :],
            highest, total, summed, HEAD_SIZE, BLOCK_SIZE,
        )  # fmt: skip
    result = summed / total[:, None] * value_scale
    if NUM_SPLITS > 1:
        target = partial + part[:, None] * HEAD_SIZE + sizes[None, :]
        tl.store(target, result, mask=is_member[:, None])
        tl.store(log_sums + part, highest + tl.log2(total), mask=is_member)
    else:
        target = output + place[:, None] * HEAD_SIZE + sizes[None, :]
        tl.store(target, result.to(output.dtype.element_ty), mask=is_member[:, None])


@triton.jit
def combine_splits(
    partial, log_sums, query_starts, output,
    NUM_HEADS: tl.constexpr, HEAD_SIZE: tl.constexpr,
    NUM_SPLITS: tl.constexpr, PADDED_SPLITS: tl.constexpr,
):  # fmt: skip
    """One program a sequence and query head: weighs what the splits found."""
    row, head = tl.program_id(0), tl.program_id(1)
    token = tl.load(query_starts + row).to(tl.int64)
    if tl.load(query_starts + row + 1) - token != 1:
        return
    splits = tl.arange(0, PADDED_SPLITS)
    sizes = tl.arange(0, HEAD_SIZE)
    parts = (row * NUM_HEADS + head) * NUM_SPLITS + splits
    found = tl.load(log_sums + parts, mask=splits < NUM_SPLITS, other=float("-inf"))
    highest = tl.max(found, 0)
    highest = tl.where(highest == float("-inf"), 0.0, highest)
    weights = tl.exp2(found - highest)
    # What a split without places left in its part is not a number that means anything.
    results = tl.load(
        partial + parts[:, None] * HEAD_SIZE + sizes[None, :],
        mask=(weights > 0.0)[:, None],
        other=0.0,
    )
    total = tl.sum(weights, 0)
    result = tl.sum(results * weights[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    target = output + (token * NUM_HEADS + head) * HEAD_SIZE + sizes
    tl.store(target, result.to(output.dtype.element_ty))


@triton.jit
def attend_chunks(
    query, keys, values, block_tables, lengths, query_starts, output, scale, value_scale,
    num_sequences, query_token_stride, query_head_stride, slot_stride, head_stride, table_stride,
    NUM_HEADS: tl.constexpr, GROUP: tl.constexpr,
    HEAD_SIZE: tl.constexpr, BLOCK_SIZE: tl.constexpr, WINDOW: tl.constexpr,
    ROWS: tl.constexpr, QUERIES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One program for `QUERIES` tokens of a sequence with several, times the query heads of one
    key/value head: `QUERIES * GROUP` rows of a product, at most `ROWS`.

    Sequence s owns the programs from start // QUERIES + s on: at least as many as it needs.
    """
    program, kv_head = tl.program_id(0), tl.program_id(1)
    low, high = 0, num_sequences
    while low < high:
        middle = (low + high) // 2
        if tl.load(query_starts + middle) // QUERIES + middle <= program:
            low = middle + 1
        else:
            high = middle
    row = low - 1
    start = tl.load(query_starts + row)
    count = tl.load(query_starts + row + 1) - start
    first_query = (program - (start // QUERIES + row)) * QUERIES
    if (first_query >= count) | (count == 1):
        return
    length = tl.load(lengths + row)
    members = tl.arange(0, ROWS)
    sizes = tl.arange(0, HEAD_SIZE)
    queries = first_query + members // GROUP
    heads = kv_head * GROUP + members % GROUP
    is_row = (queries < count) & (members < QUERIES * GROUP)
    tokens = (start + queries).to(tl.int64)
    asked = tl.load(
        query + (tokens * query_token_stride + heads * query_head_stride)[:, None] + sizes[None, :],
        mask=is_row[:, None],
        other=0.0,
    )
    positions = length - count + queries
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    summed = tl.zeros([ROWS, HEAD_SIZE], tl.float32)
    end_place = tl.minimum(length, length - count + first_query + QUERIES)
    first_place = tl.maximum(length - count + first_query - WINDOW + 1, 0) if WINDOW > 0 else 0
    states_of_head = kv_head * head_stride
    for tile in range(first_place // TILE, tl.cdiv(end_place, TILE)):
        places = tile * TILE + tl.arange(0, TILE)
        is_there = (places >= first_place) & (places < end_place)
        is_seen = is_there[None, :] & (places[None, :] <= positions[:, None])
        if WINDOW > 0:
            is_seen = is_seen & (places[None, :] > positions[:, None] - WINDOW)
        highest, total, summed = _attend_tile(
            asked, scale, keys + states_of_head, values + states_of_head, slot_stride,
            block_tables + row * table_stride, places, is_there, is_seen,
            highest, total, summed, HEAD_SIZE, BLOCK_SIZE,
        )  # fmt: skip
    result = summed / tl.where(total == 0.0, 1.0, total)[:, None] * value_scale
    target = output + ((tokens * NUM_HEADS + heads) * HEAD_SIZE)[:, None] + sizes[None, :]
    tl.store(target, result.to(output.dtype.element_ty), mask=is_row[:, None])


@triton.jit
def _attend_tile(
    asked, scale, keys, values, slot_stride, block_table, places, is_there, is_seen,
    highest, total, summed, HEAD_SIZE: tl.constexpr, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    """Adds some places to an online softmax: the highest score, the sum of weights, the sum of
    weighed values. `is_there`: of the places; `is_seen`: of each row of `asked` and place."""
    sizes = tl.arange(0, HEAD_SIZE)
    block = tl.load(block_table + places // BLOCK_SIZE, mask=is_there, other=0).to(tl.int64)
    states = (block * BLOCK_SIZE + places % BLOCK_SIZE) * slot_stride
    seen = tl.load(keys + states[None, :] + sizes[:, None], mask=is_there[None, :], other=0.0)
    scores = tl.dot(asked, seen.to(asked.dtype), input_precision="ieee") * (scale * LOG2_E)
    scores = tl.where(is_seen, scores, float("-inf"))
    higher = tl.maximum(highest, tl.max(scores, 1))
    # A row whose window begins in a later tile has seen nothing yet.
    level = tl.where(higher == float("-inf"), 0.0, higher)
    weights = tl.exp2(scores - level[:, None])
    decay = tl.exp2(highest - level)
    seen = tl.load(values + states[:, None] + sizes[None, :], mask=is_there[:, None], other=0.0)
    seen = seen.to(asked.dtype)
    weighed = tl.dot(weights.to(asked.dtype), seen, input_precision="ieee")
    return higher, total * decay + tl.sum(weights, 1), summed * decay[:, None] + weighed
