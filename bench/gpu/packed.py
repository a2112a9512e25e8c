"""Weights that stay packed on the GPU, next to bfloat16: decode steps of 32 rows."""

import gc
from dataclasses import replace

import torch

from bench.figures import Row
from bench.gpu.decode import step_s
from bench.gpu.llama import LLAMA, SETTINGS, RandomLlama
from trivet.backends.llm.families.llama import LlamaShape
from trivet.backends.llm.settings import EngineSettings

BATCH, CONTEXT, NUM_STEPS = 32, 256, 64
BARS = {"int4": 2.0, "int8": None}
"""Times as fast as bfloat16. Of 8 bits less than half of the bytes is saved: the head stays."""


def run() -> list[Row]:
    """In one run, one after the other."""
    return packed_rows(LLAMA, SETTINGS)


def packed_rows(
    config: LlamaShape, settings: EngineSettings, batch: int = BATCH, context: int = CONTEXT,
    num_steps: int = NUM_STEPS,
) -> list[Row]:  # fmt: skip
    """Tokens a second of each, and of bfloat16."""
    shape = batch, context, num_steps
    plain_s = _step_s(config, settings, *shape)
    rows = []
    for name, bar in BARS.items():
        ours_s = _step_s(config, replace(settings, quantization=name), *shape)
        note = f"step {ours_s * 1e3:.2f} ms, of {settings.dtype} {plain_s * 1e3:.2f} ms"
        cell = f"decode {name}, batch {batch}, context {context}: next to {settings.dtype}"
        rows.append(Row(cell, "tokens/s", batch / ours_s, batch / plain_s, bar, note=note))
    return rows


def _step_s(
    config: LlamaShape, settings: EngineSettings, batch: int, context: int, num_steps: int
) -> float:
    llama = RandomLlama(config, settings)
    llama.record()
    found = step_s(llama.run([(context - num_steps // 2, num_steps)] * batch), batch)
    del llama
    gc.collect()
    if settings.device != "cpu":
        torch.cuda.empty_cache()
    return found
