"""Decode steps of our engine at one context, next to the bandwidth floor of the same device."""

import statistics

from bench.figures import Row
from bench.gpu.llama import Frames, RandomLlama
from bench.gpu.roofline import Numbers, Rates, step_floor_s

CONTEXT = 1024
BATCHES = (1, 32, 128, 256)
NUM_STEPS = 64
BAR, GOAL = 0.5, 0.85
MOST_IDLE = 0.05


def decode_rows(
    llama: RandomLlama, rates: Rates, numbers: Numbers, batches: tuple[int, ...] = BATCHES,
    context: int = CONTEXT, num_steps: int = NUM_STEPS,
) -> list[Row]:  # fmt: skip
    """Tokens a second, as a share of the floor's; and how much of a step the device idles."""
    kind = "fp8" if numbers.weight_bytes == 1 else llama.settings.dtype
    rows = []
    for batch in batches:
        before = context - num_steps // 2  # its middle is at the context
        ahead, alone = (
            step_s(llama.run([(before, num_steps)] * batch, overlaps=overlaps), batch)
            for overlaps in (True, False)
        )
        floor = step_floor_s(llama.config, batch, context, rates, numbers)
        cell = f"decode {kind}, batch {batch}, context {context}"
        note = f"goal {GOAL:.0%}; step {ahead * 1e3:.2f} ms, floor {floor * 1e3:.2f} ms"
        rows += [
            Row(f"{cell}: share of the floor", "tokens/s", batch / ahead, batch / floor, BAR,
                note=note),
            Row(f"{cell}: steps ahead next to one by one", "tokens/s", batch / ahead,
                batch / alone, None),
        ]  # fmt: skip
    return rows


def step_s(frames: Frames, batch: int) -> float:
    """The median time between two frames with a token for each sequence."""
    assert not frames.errors, frames.errors[0]
    full = [count == batch for count in frames.counts]
    gaps = [
        later - earlier
        for earlier, later, first, second in zip(
            frames.times_s, frames.times_s[1:], full, full[1:], strict=False
        )
        if first and second
    ]
    assert gaps, "the sequences never ran together: the cache is too small for them"
    return statistics.median(gaps)


def idle_row(llama: RandomLlama, busy_s: float, batch: int, context: int = CONTEXT) -> Row:
    """How much of a step the device waits. `busy_s`: of the same step, launched again and again."""
    frames = llama.run([(context - NUM_STEPS // 2, NUM_STEPS)] * batch)
    whole_s = step_s(frames, batch)
    return Row(
        f"decode, batch {batch}: the device's idle share of a step", "share",
        max(1 - busy_s / whole_s, 0.0), 0.0, MOST_IDLE, is_difference=True,
        note=f"step {whole_s * 1e3:.2f} ms, of which the device computes {busy_s * 1e3:.2f} ms",
    )  # fmt: skip
