"""A decode step's time on the device alone: launched again and again, with the host far ahead."""

import numpy as np
import torch

from bench.gpu.llama import RandomLlama
from trivet.backends.llm.sampling.draws import Draws
from trivet.backends.llm.scheduling.batch_state import StepArrays

NUM_LAUNCHES = 20


def busy_s(llama: RandomLlama, batch: int, context: int) -> float:
    """Seconds a step, by the device's clock."""
    arrays = decode_arrays(batch, context, llama.settings.block_size, llama.loaded.num_blocks)
    rows = np.arange(batch)
    draws = Draws(rows, rows[:0], rows[:0], [])
    runner = llama.loaded.runner
    for _ in range(3):
        runner.launch(arrays, list(range(batch)), draws)()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch's own lack
    begin.record()
    for _ in range(NUM_LAUNCHES):
        runner.launch(arrays, list(range(batch)), draws)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / NUM_LAUNCHES


def decode_arrays(batch: int, context: int, block_size: int, num_blocks: int) -> StepArrays:
    """The next token of sequences of `context` tokens, over scattered blocks."""
    each = -(-(context + 1) // block_size)
    blocks = np.random.default_rng(0).permutation(num_blocks - 1)[: batch * each] + 1
    tables = blocks.reshape(batch, each).astype(np.int32)
    positions = np.full(batch, context)
    slots = tables[:, context // block_size].astype(np.int64) * block_size + context % block_size
    return StepArrays(
        np.full(batch, 7), positions, slots, np.arange(batch + 1, dtype=np.int32),
        np.full(batch, context + 1, dtype=np.int32), tables,
    )  # fmt: skip
