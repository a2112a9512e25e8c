"""How much memory the largest step takes: it is computed once, over a cache of nothing."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from trivet.backends.api import Sampling
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.families.staging import WHOLE, Stage
from trivet.backends.llm.sampling.draws import Draws, chosen, wish_arrays
from trivet.backends.llm.scheduling.sequence import PENDING
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.steps.runner import Model


class Meter(Protocol):
    """Reads a device's memory."""

    def allocated(self) -> int:
        """Bytes that tensors take now."""

    def peak(self, run: Callable[[], None]) -> int:
        """Bytes that tensors take at most while it runs."""


class CudaMeter:
    """PyTorch's allocator knows."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def allocated(self) -> int:
        """See Meter."""
        return torch.cuda.memory_allocated(self._device)

    def peak(self, run: Callable[[], None]) -> int:
        """See Meter."""
        torch.cuda.reset_peak_memory_stats(self._device)
        run()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device)


@torch.no_grad()
def largest_step(
    model: Model,
    settings: EngineSettings,
    device: torch.device,
    stage: Stage = WHOLE,
    like: Tensor | None = None,
) -> None:
    """As many tokens as a step may have, of as many sequences as may sample, each drawn in the way
    that takes most memory. Nothing is written to the cache. `like`: what the states of a stage
    are."""
    num_tokens = settings.step_tokens(device.type)
    num_rows = min(settings.max_num_seqs, num_tokens)
    counts = np.full(num_rows, num_tokens // num_rows)
    counts[: num_tokens % num_rows] += 1
    ends = torch.from_numpy(np.cumsum(counts))
    num_blocks = -(-int(counts[0]) // settings.block_size)
    zeros = torch.zeros(num_tokens, dtype=torch.int64, device=device)
    logits = model.forward(
        StepInputs(
            token_ids=zeros,
            positions=zeros,
            slot_mapping=torch.full_like(zeros, -1),
            query_starts=torch.nn.functional.pad(ends, (1, 0)).int().to(device),
            sequence_lengths=torch.from_numpy(counts).int().to(device),
            block_tables=torch.zeros(num_rows, num_blocks, dtype=torch.int32, device=device),
            sample_rows=(ends - 1).to(device),
            states=None if like is None else like.new_zeros(num_tokens, like.shape[-1]),
        )
    )
    if not stage.is_last:
        return
    rows = np.arange(num_rows)
    wishes = wish_arrays([Sampling(top_p=0.9)] * num_rows, [0] * num_rows, [0] * num_rows)
    draws = Draws(rows, rows[:0], rows, wishes)
    tensors = [torch.from_numpy(array).to(device) for array in draws.arrays]
    chosen(logits, draws, tensors, PENDING)
