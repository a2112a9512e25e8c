"""Attention of random steps, against float64 and against plain torch, over scattered blocks."""

import random
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from triton import knobs

from trivet.backends.llm.attention import triton_paged
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.attention.triton_paged import TritonAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.kinds import GroupedAttention
from trivet.backends.llm.families.llama import LlamaShape

SCALE = 0.3
# The interpreter multiplies bfloat16 by its bits.
HALF_TYPES = [torch.float16] if knobs.runtime.interpret else [torch.float16, torch.bfloat16]


@dataclass(frozen=True)
class Step:
    """Random states of sequences, of which the last tokens are computed now."""

    inputs: StepInputs
    cache: KvCache
    query: Tensor
    key: Tensor
    value: Tensor
    past_keys: list[Tensor]
    """Of each sequence all, [length, key/value heads, head size]."""
    past_values: list[Tensor]


def make_step(
    device: torch.device,
    lengths: list[int],
    counts: list[int],
    *,
    heads: tuple[int, int] = (6, 2),
    head_size: int = 64,
    block_size: int = 16,
    dtype: torch.dtype = torch.float32,
) -> Step:
    """Sequences of `lengths` tokens, their last `counts` new. What was never written is NaN."""
    generator = torch.Generator().manual_seed(len(lengths) + sum(lengths))
    num_heads, num_kv = heads
    config = shape(num_heads, num_kv, head_size)
    num_blocks = [-(-length // block_size) for length in lengths]
    ids = list(range(1, sum(num_blocks) + 1))
    random.Random(1).shuffle(ids)
    tables = [[ids.pop() for _ in range(count)] for count in num_blocks]
    cache = KvCache(config, sum(num_blocks) + 1, block_size, dtype, device)
    for layer in cache.layers:
        layer[:, 1:] = torch.nan

    def states(count: int, num: int) -> Tensor:
        return torch.randn(count, num, head_size, generator=generator).to(device, dtype)

    past = [(states(length, num_kv), states(length, num_kv)) for length in lengths]
    slots = [slots_of(table, block_size)[:n] for table, n in zip(tables, lengths, strict=True)]
    for where, (keys, values) in zip(slots, past, strict=True):
        for layer in cache.layers:
            layer[0].flatten(0, 1)[where] = keys
            layer[1].flatten(0, 1)[where] = values
    new = [slice(length - count, length) for length, count in zip(lengths, counts, strict=True)]
    mapping = torch.cat([where[part] for where, part in zip(slots, new, strict=True)])
    for layer in cache.layers:
        layer[0].flatten(0, 1)[mapping] = torch.nan
        layer[1].flatten(0, 1)[mapping] = torch.nan
    width = max(num_blocks)
    num_tokens = sum(counts)
    inputs = StepInputs(
        token_ids=torch.zeros(num_tokens, dtype=torch.int64, device=device),
        positions=torch.cat([torch.arange(part.start, part.stop) for part in new]).to(device),
        slot_mapping=mapping.to(device),
        query_starts=torch.tensor([0, *counts]).cumsum(0).int().to(device),
        sequence_lengths=torch.tensor(lengths, dtype=torch.int32, device=device),
        block_tables=torch.tensor(
            [table + [0] * (width - len(table)) for table in tables],
            dtype=torch.int32,
            device=device,
        ),
        sample_rows=torch.arange(num_tokens, device=device),
    )
    # Parts of one product, as in a model: rows are not next to each other.
    fused = states(num_tokens, num_heads + 2 * num_kv)
    query, _, _ = torch.split(fused, [num_heads, num_kv, num_kv], dim=1)
    keys, values = fused[:, num_heads : num_heads + num_kv], fused[:, num_heads + num_kv :]
    keys.copy_(torch.cat([pair[0][part] for pair, part in zip(past, new, strict=True)]))
    values.copy_(torch.cat([pair[1][part] for pair, part in zip(past, new, strict=True)]))
    return Step(
        inputs, cache, query, keys, values, [pair[0] for pair in past], [pair[1] for pair in past]
    )


def shape(num_heads: int, num_kv_heads: int, head_size: int) -> LlmConfig:
    """Of a model with one layer."""
    return LlamaShape(
        architecture="llama", vocabulary_size=8, hidden_size=num_heads * head_size,
        intermediate_size=8, num_layers=1, num_heads=num_heads, num_kv_heads=num_kv_heads,
        head_dim=head_size, max_positions=4096, rms_norm_eps=1e-5, rope_theta=1e4,
    ).config()  # fmt: skip


def slots_of(table: list[int], block_size: int) -> Tensor:
    """All slots of a sequence's blocks, in order."""
    blocks = torch.tensor(table).unsqueeze(1) * block_size
    return (blocks + torch.arange(block_size)).flatten()


def exact(step: Step, window: int = 0) -> Tensor:
    """The output in float64, without pages."""
    starts = step.inputs.query_starts.tolist()
    group = step.query.shape[1] // step.key.shape[1]
    parts = []
    for row, (keys, values) in enumerate(zip(step.past_keys, step.past_values, strict=True)):
        query = step.query[starts[row] : starts[row + 1]].double()
        keys, values = (x.double().repeat_interleave(group, dim=1) for x in (keys, values))
        places = torch.arange(len(keys), device=keys.device)
        positions = places[len(keys) - len(query) :].unsqueeze(1)
        is_hidden = places > positions
        if window:
            is_hidden |= places <= positions - window
        scores = torch.einsum("qhd,khd->hqk", query, keys) * SCALE
        weights = scores.masked_fill(is_hidden, -torch.inf).softmax(dim=-1)
        parts.append(torch.einsum("hqk,khd->qhd", weights, values))
    return torch.cat(parts)


def kind(step: Step, window: int = 0) -> GroupedAttention:
    """Of the step's heads."""
    _, num_heads, size = step.query.shape
    return GroupedAttention(
        num_heads, step.key.shape[1], size, None, window=window, score_multiplier=SCALE
    )


def compute(step: Step, window: int = 0) -> Tensor:
    """The output of the kernels."""
    attention = TritonAttention(step.cache, [kind(step, window)])
    attention.begin(step.inputs)
    return attention.attend(0, step.query, step.key, step.value)


def assert_exact(step: Step, window: int = 0) -> None:
    """The kernels give what float64 gives, to the rounding of their type."""
    tolerance = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}[step.query.dtype]
    found, wanted = compute(step, window).double(), exact(step, window)
    assert torch.isfinite(found).all()
    assert (found - wanted).norm() / wanted.norm() < tolerance
    torch.testing.assert_close(found, wanted, atol=10 * tolerance, rtol=0)


@pytest.mark.parametrize("block_size", [1, 16, 64])
@pytest.mark.parametrize("head_size", [64, 128])
@pytest.mark.parametrize("heads", [(2, 2), (6, 2), (8, 1)])
def test_decodes_and_chunks_of_one_step_are_exact(
    device: torch.device, heads: tuple[int, int], head_size: int, block_size: int
) -> None:
    step = make_step(
        device, [70, 1, 33, 5, 64], [1, 1, 33, 2, 20],
        heads=heads, head_size=head_size, block_size=block_size,
    )  # fmt: skip
    assert_exact(step)


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_half_types_are_exact_to_their_rounding(device: torch.device, dtype: torch.dtype) -> None:
    assert_exact(make_step(device, [70, 1, 133], [1, 1, 33], dtype=dtype))


@pytest.mark.parametrize("block_size", [16, 64])
@pytest.mark.parametrize("length", [255, 256, 257, 511, 512, 513, 1024])
def test_long_sequences_are_decoded_in_splits(
    device: torch.device, length: int, block_size: int
) -> None:
    step = make_step(device, [length, 1024, 3], [1, 1, 1], block_size=block_size)
    attention = TritonAttention(step.cache, [kind(step)])
    attention.begin(step.inputs)
    assert attention._num_splits > 1
    assert_exact(step)


@pytest.mark.parametrize("window", [1, 7, 64, 65, 200])
def test_windows_hide_what_lies_behind_them(device: torch.device, window: int) -> None:
    assert_exact(make_step(device, [300, 64, 190, 3], [1, 1, 130, 2]), window)


@pytest.mark.parametrize("lengths", [([70, 33, 5], [1, 33, 2]), ([1024, 7], [1, 1])])
def test_a_cache_of_8_bits_is_read_and_written_by_its_scales(
    device: torch.device, lengths: tuple[list[int], list[int]]
) -> None:
    step = make_step(device, *lengths)
    scales = (0.013, 0.02)
    given = step.cache.layers[0]
    cache = KvCache(shape(6, 2, 64), given.shape[1], 16, torch.float8_e4m3fn, device, [scales])
    for past, scale, states, there in zip(
        (step.past_keys, step.past_values), scales, given, cache.layers[0], strict=True
    ):
        for index, each in enumerate(past):
            past[index] = (each / scale).to(cache.layers[0].dtype).float() * scale
        there.copy_((states / scale).to(there.dtype))  # with NaN where the step is to write
    assert_exact(replace(step, cache=cache))


def test_a_window_over_splits_is_exact(device: torch.device) -> None:
    assert_exact(make_step(device, [1024, 700, 1], [1, 1, 1]), window=500)


def test_head_groups_larger_than_a_tile_are_exact(device: torch.device) -> None:
    assert_exact(make_step(device, [40, 40], [1, 10], heads=(71, 1)))


def test_chunks_cross_the_programs_that_compute_them(device: torch.device) -> None:
    assert_exact(make_step(device, [150, 97, 64, 65], [150, 33, 64, 65], heads=(3, 1)))


@pytest.mark.parametrize("window", [0, 20])
def test_plain_torch_gives_the_same(device: torch.device, window: int) -> None:
    step = make_step(device, [70, 1, 133, 64], [1, 1, 33, 64])
    reference = TorchAttention(step.cache, [kind(step, window)])
    found = compute(step, window)
    reference.begin(step.inputs)
    wanted = reference.attend(0, step.query, step.key, step.value)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_rows_that_fill_up_a_batch_touch_nothing(device: torch.device) -> None:
    step = make_step(device, [20, 300], [1, 1])
    inputs = step.inputs
    padded = StepInputs(
        token_ids=inputs.token_ids, positions=inputs.positions,
        slot_mapping=torch.cat((inputs.slot_mapping, torch.tensor([-1, -1], device=device))),
        query_starts=torch.arange(5, dtype=torch.int32, device=device),
        sequence_lengths=torch.nn.functional.pad(inputs.sequence_lengths, (0, 2)),
        block_tables=torch.nn.functional.pad(inputs.block_tables, (0, 0, 0, 2)),
        sample_rows=inputs.sample_rows,
    )  # fmt: skip
    attention = TritonAttention(step.cache, [kind(step)])
    attention.begin(padded)
    before = [layer.clone() for layer in step.cache.layers]
    rows = [torch.nn.functional.pad(x, (0, 0, 0, 0, 0, 2)) for x in (step.query, step.key,
                                                                    step.value)]  # fmt: skip
    output = attention.attend(0, *rows)
    torch.testing.assert_close(output[:2].double(), exact(step), atol=1e-4, rtol=0)
    assert (output[2:] == 0).all()
    unwritten = torch.ones(before[0].flatten(1, 2).shape[1], dtype=torch.bool, device=device)
    unwritten[inputs.slot_mapping] = False
    for old, new in zip(before, step.cache.layers, strict=True):
        kept = [x.flatten(1, 2)[:, unwritten].nan_to_num(7.0) for x in (old, new)]
        assert torch.equal(*kept)


def test_new_states_lie_in_their_slots_and_nowhere_else(device: torch.device) -> None:
    step = make_step(device, [20, 7], [5, 1])
    compute(step)
    keys, values = (states.flatten(0, 1) for states in step.cache.layers[0])
    assert torch.equal(keys[step.inputs.slot_mapping], step.key)
    assert torch.equal(values[step.inputs.slot_mapping], step.value)
    assert (step.cache.layers[0][:, 0] == 0).all()
    num_written = torch.isfinite(keys).all(dim=-1).all(dim=-1).sum()
    assert num_written == 27 + step.cache.block_size


def test_a_row_does_not_depend_on_its_neighbours(device: torch.device) -> None:
    alone = compute(make_step(device, [150], [1]))
    step = make_step(device, [150], [1])
    wide = make_step(device, [150, 30, 70], [1, 1, 40])
    wide.query[0], wide.key[0], wide.value[0] = step.query[0], step.key[0], step.value[0]
    table = wide.inputs.block_tables[0].tolist()
    where = slots_of(table, 16)[:150].to(device)
    wide.cache.layers[0][0].flatten(0, 1)[where] = step.past_keys[0]
    wide.cache.layers[0][1].flatten(0, 1)[where] = step.past_values[0]
    assert torch.equal(compute(wide)[0], alone[0])


@pytest.mark.parametrize(
    ("programs", "longest", "wanted"),
    [(1, 100, 1), (1, 512, 2), (8, 100_000, 32), (64, 100_000, 8), (256, 100_000, 2),
     (529, 100_000, 1), (1, 1_000_000, 32)],
)  # fmt: skip
def test_splits_fill_the_processors_and_no_more(programs: int, longest: int, wanted: int) -> None:
    assert triton_paged.choose_splits(programs, longest, 132) == wanted
