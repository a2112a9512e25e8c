"""What this device moves and multiplies at most, measured."""

import statistics
from collections.abc import Callable

import torch

from bench.gpu.roofline import Rates
from trivet.backends.llm.matrices.fp8 import FP8

COPY_BYTES = 1 << 31
SIDE = 8192
REPEATS = 15


def measure(dtype: torch.dtype = torch.bfloat16) -> Rates:
    """Bytes a second, of a copy or of a sum, whichever is more; products of `dtype`."""
    return Rates(_bytes_per_s(), 2 * SIDE**3 / seconds(_product(dtype)))


def _bytes_per_s() -> float:
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    copied = 2 * COPY_BYTES / seconds(lambda: target.copy_(source))
    numbers = source.view(torch.int32)
    return max(copied, COPY_BYTES / seconds(lambda: torch.sum(numbers)))


def _product(dtype: torch.dtype) -> Callable[[], object]:
    left, right = (
        torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16).to(dtype) for _ in range(2)
    )
    if dtype != FP8:
        return lambda: left @ right
    one = torch.ones((), device="cuda")
    return lambda: torch._scaled_mm(  # noqa: SLF001  # no public form yet
        left, right.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
    )


def seconds(work: Callable[[], object]) -> float:
    """The median of some runs, by the device's clock."""
    for _ in range(3):
        work()
    found = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch's own lack
        begin.record()
        work()
        end.record()
        end.synchronize()
        found.append(float(begin.elapsed_time(end)) / 1e3)
    return statistics.median(found)
