"""Sequences that begin alike, decoded together: what they share is attended to once."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.families.kinds import GroupedAttention
from trivet.backends.llm.families.llama import LlamaShape

HEADS, KV_HEADS, SIZE, BLOCK, SHARED_BLOCKS, SCALE = 6, 2, 32, 16, 8, 0.4
CONFIG = LlamaShape(
    architecture="llama", vocabulary_size=8, hidden_size=HEADS * SIZE, intermediate_size=8,
    num_layers=1, num_heads=HEADS, num_kv_heads=KV_HEADS, head_dim=SIZE, max_positions=4096,
    rms_norm_eps=1e-5, rope_theta=1e4,
).config()  # fmt: skip


KIND = GroupedAttention(HEADS, KV_HEADS, SIZE, None, score_multiplier=SCALE)


def is_split(attention: TorchAttention) -> bool:
    """Whether what rows begin with is attended to apart."""
    [seen] = attention._seen
    assert seen.decodes is not None
    return seen.decodes.shared is not None


def step(num_rows: int, chunk: int = 0) -> StepInputs:
    """Rows of one new token each, behind the shared blocks and 0 to 31 tokens of their own; then a
    row of `chunk` new tokens behind the shared blocks."""
    counts = [1] * num_rows + [chunk] * bool(chunk)
    own = [1 + row * 7 % 32 for row in range(num_rows)] + [chunk] * bool(chunk)
    lengths = [SHARED_BLOCKS * BLOCK + count for count in own]
    shared = list(range(SHARED_BLOCKS, 0, -1))
    tables = [
        [*shared, SHARED_BLOCKS + 1 + 2 * row, SHARED_BLOCKS + 2 + 2 * row]
        for row in range(len(counts))
    ]
    for row, length in enumerate(lengths):  # a block that a sequence does not have is block 0
        tables[row] = [
            block if index * BLOCK < length else 0 for index, block in enumerate(tables[row])
        ]
    spans = [range(length - count, length) for length, count in zip(lengths, counts, strict=True)]
    return StepInputs(
        token_ids=torch.zeros(sum(counts), dtype=torch.int64),
        positions=torch.tensor([at for span in spans for at in span]),
        slot_mapping=torch.tensor(
            [
                table[at // BLOCK] * BLOCK + at % BLOCK
                for table, span in zip(tables, spans, strict=True)
                for at in span
            ]
        ),
        query_starts=torch.tensor([0, *counts]).cumsum(0).int(),
        sequence_lengths=torch.tensor(lengths, dtype=torch.int32),
        block_tables=torch.tensor(tables, dtype=torch.int32),
        sample_rows=torch.arange(sum(counts)),
    )


def filled(num_rows: int, dtype: torch.dtype) -> KvCache:
    """A cache of random states, with block 0 of zeros."""
    cache = KvCache(CONFIG, SHARED_BLOCKS + 2 * num_rows + 3, BLOCK, dtype)
    cache.layers[0][:, 1:] = torch.randn(cache.layers[0][:, 1:].shape).to(dtype)
    return cache


def exact(cache: KvCache, inputs: StepInputs, query: Tensor) -> Tensor:
    """Each query by itself, in float64."""
    keys, values = (states.flatten(0, 1).double() for states in cache.layers[0])
    starts = inputs.query_starts.tolist()
    found = []
    for row in range(len(starts) - 1):
        table = inputs.block_tables[row].long()
        slots = (table[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
        for at in range(starts[row], starts[row + 1]):
            seen = slots[: int(inputs.positions[at]) + 1]
            heads = [head // (HEADS // KV_HEADS) for head in range(HEADS)]
            scores = torch.einsum("hd,thd->ht", query[at].double(), keys[seen][:, heads]) * SCALE
            found.append(torch.einsum("ht,thd->hd", scores.softmax(-1), values[seen][:, heads]))
    return torch.stack(found)


@pytest.mark.parametrize("chunk", [0, 21])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str
)
@pytest.mark.parametrize(("num_rows", "is_apart"), [(24, True), (3, False)])
def test_a_shared_beginning_changes_no_output(
    num_rows: int, is_apart: bool, dtype: torch.dtype, tolerance: float, chunk: int
) -> None:
    torch.manual_seed(3)
    cache = filled(num_rows, dtype)
    inputs = step(num_rows, chunk)
    count = len(inputs.token_ids)
    query, key, value = (
        torch.randn(count, heads, SIZE).to(dtype) for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    attention = TorchAttention(cache, [KIND])
    attention.begin(inputs)
    found = attention.attend(0, query, key, value)
    assert is_split(attention) == is_apart
    wanted = exact(cache, inputs, query)
    assert wanted.std() > 0.1
    torch.testing.assert_close(found.double(), wanted, atol=tolerance, rtol=tolerance)


def test_windows_are_not_split_into_shared_and_own() -> None:
    cache = filled(24, torch.float32)
    attention = TorchAttention(cache, [replace(KIND, window=64)])
    attention.begin(step(24))
    assert not is_split(attention)
