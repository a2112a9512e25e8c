"""Whole requests through our engine, next to what the device could do at most."""

import time

from bench.figures import Row
from bench.gpu.llama import RandomLlama
from bench.gpu.roofline import Numbers, Rates, ceiling_per_s

LOADS = ((1000, 1000), (128, 2048))
"""Tokens of the prompt and of the output."""
BAR, GOAL = 0.5, 0.7


def throughput_rows(
    llama: RandomLlama, rates: Rates, numbers: Numbers,
    loads: tuple[tuple[int, int], ...] = LOADS, num_requests: int | None = None,
) -> list[Row]:  # fmt: skip
    """Output tokens a second, as a share of the ceiling's for the same number at a time."""
    most = llama.settings.max_num_seqs
    kind = "fp8" if numbers.weight_bytes == 1 else llama.settings.dtype
    rows = []
    for prompt, output in loads:
        count = num_requests or most
        started_s = time.perf_counter()
        frames = llama.run([(prompt, output)] * count)
        elapsed_s = time.perf_counter() - started_s
        assert not frames.errors, frames.errors[0]
        ceiling = ceiling_per_s(
            llama.config, prompt, output, rates, numbers,
            cache_tokens=llama.cache_tokens, most_sequences=min(most, count),
        )  # fmt: skip
        rows.append(
            Row(f"{count} requests {kind}, {prompt}/{output}: share of the ceiling", "tokens/s",
                sum(frames.counts) / elapsed_s, ceiling, BAR,
                note=f"goal {GOAL:.0%}; {elapsed_s:.1f} s")
        )  # fmt: skip
    return rows
