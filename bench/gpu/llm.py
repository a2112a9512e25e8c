"""The language model's subject: right first, then decode steps, then whole requests."""

import gc

import torch

from bench.figures import Row
from bench.gpu import ceilings
from bench.gpu.busy import busy_s
from bench.gpu.correctness import logits_row, tokens_row
from bench.gpu.decode import CONTEXT, decode_rows, idle_row
from bench.gpu.llama import LLAMA, SETTINGS, RandomLlama, eight_bit
from bench.gpu.roofline import Numbers
from bench.gpu.throughput import throughput_rows
from trivet.backends.llm.matrices.fp8 import FP8

IDLE_BATCHES = (32, 128)


def run() -> list[Row]:
    """In 16 bits."""
    rows = [logits_row()]
    rates = ceilings.measure()
    print(
        f"{rates.bytes_per_s / 1e12:.2f} TB/s, {rates.flops_per_s / 1e12:.0f} TFLOP/s", flush=True
    )
    llama = RandomLlama(LLAMA, SETTINGS)
    llama.record()
    rows.append(tokens_row(llama))
    rows += decode_rows(llama, rates, Numbers())
    for batch in IDLE_BATCHES:
        rows.append(idle_row(llama, busy_s(llama, batch, CONTEXT), batch))
    return rows + throughput_rows(llama, rates, Numbers())


def run_8bit() -> list[Row]:
    """With weights and cache of 8-bit numbers."""
    rates = ceilings.measure(FP8)
    gc.collect()
    torch.cuda.empty_cache()
    llama = RandomLlama(LLAMA, eight_bit(SETTINGS))
    llama.record()
    numbers = Numbers(weight_bytes=1, cache_bytes=1)
    return decode_rows(llama, rates, numbers) + throughput_rows(llama, rates, numbers)
