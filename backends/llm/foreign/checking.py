"""Whether a way of computing a model over our cache gives what transformers gives: tried at load,
on a few random tokens, cut up and batched. What would be wrong is never served."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.steps.runner import Model

STEPS = ((6, 3, 0), (3, 0, 1), (1, 4, 4), (1, 1, 1), (0, 1, 1))
"""Tokens of each of three sequences in each step: whole prompts and chunks, next to decoded tokens;
shorter than a convolution, and longer."""
_BLOCK_SIZE = 4
_NUM_BLOCKS = 4
"""Of a sequence."""
_EXACT, _ROUNDED = 1e-3, 0.1
"""How far logits of a token may differ, relative to their deviation: in float32, and half of the
tokens of a sequence's step in 16 bits, where a layer of experts may choose another."""


def differs(
    config: LlmConfig,
    make: Callable[[KvCache], Model],
    references: Sequence[Tensor],
    prompts: Sequence[Tensor],
    dtype: torch.dtype,
) -> str:
    """How the logits of the prompts that a way gives differ from the references, [tokens,
    vocabulary] each; empty if they do not."""
    cache = KvCache(config, 1 + _NUM_BLOCKS * len(prompts), _BLOCK_SIZE, dtype)
    model = make(cache)
    done = [0] * len(prompts)
    for step in STEPS:
        rows = [row for row, count in enumerate(step) if count]
        parts = torch.split(
            model.forward(_inputs(prompts, rows, done, step)), [step[row] for row in rows]
        )
        for row, part in zip(rows, parts, strict=True):
            wanted = references[row][done[row] : done[row] + step[row]]
            error = error_of(part, wanted, is_exact=dtype == torch.float32)
            if error:
                first = f"token {done[row]} of a sequence, computed {step[row]} at a time"
                return (
                    f"logits differ from transformers' by {error:.2g} of their deviation ({first})"
                )
            done[row] += step[row]
    return ""


def make_prompts(vocabulary_size: int) -> list[Tensor]:
    """Random tokens, which are always the same."""
    chance = torch.Generator().manual_seed(17)
    return [
        torch.randint(vocabulary_size, (sum(counts),), generator=chance)
        for counts in zip(*STEPS, strict=True)
    ]


def references_of(model: Any, prompts: Sequence[Tensor]) -> list[Tensor]:
    """What transformers gives for each alone, without a cache."""
    return [model(input_ids=prompt[None], use_cache=False).logits[0].float() for prompt in prompts]


def error_of(found: Tensor, wanted: Tensor, *, is_exact: bool) -> float:
    """How far logits [tokens, vocabulary] are from what they should be, relative to their
    deviation; 0 where they may be so far."""
    if not bool(found.isfinite().all()):
        return float("inf")
    deviation = wanted.std(dim=-1).clamp_min(1e-6)
    errors = (found - wanted).norm(dim=-1) / wanted.shape[-1] ** 0.5 / deviation
    error, bound = (errors.max(), _EXACT) if is_exact else (errors.median(), _ROUNDED)
    return float(error) if error > bound else 0.0


def _inputs(
    prompts: Sequence[Tensor], rows: list[int], done: list[int], step: Sequence[int]
) -> StepInputs:
    spans = [(row, torch.arange(done[row], done[row] + step[row])) for row in rows]
    # Blocks of a sequence lie apart, in falling order.
    tables = [
        [1 + len(prompts) * (_NUM_BLOCKS - 1 - block) + row for block in range(_NUM_BLOCKS)]
        for row in rows
    ]
    slots = [
        torch.tensor(table)[span // _BLOCK_SIZE] * _BLOCK_SIZE + span % _BLOCK_SIZE
        for table, (_, span) in zip(tables, spans, strict=True)
    ]
    ends = [0, *accumulate(step[row] for row in rows)]
    return StepInputs(
        token_ids=torch.cat([prompts[row][span] for row, span in spans]),
        positions=torch.cat([span for _, span in spans]),
        slot_mapping=torch.cat(slots),
        query_starts=torch.tensor(ends, dtype=torch.int32),
        sequence_lengths=torch.tensor([done[row] + step[row] for row in rows], dtype=torch.int32),
        block_tables=torch.tensor(tables, dtype=torch.int32),
        sample_rows=torch.arange(ends[-1]),
    )
