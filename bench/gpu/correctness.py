"""What is measured is right: the model on the GPU against float32 on the processor, recorded and
overlapping steps against plain ones."""

from dataclasses import replace

import torch
from torch import Tensor

from bench.figures import Row
from bench.gpu.llama import LLAMA, RandomLlama, weight_shapes
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.families.llama import LlamaShape
from trivet.backends.llm.implementations import make_model
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.taking import Weights

SMALL = replace(LLAMA, num_layers=4, hidden_size=1024, num_heads=8, num_kv_heads=2,
                intermediate_size=2816, vocabulary_size=4096, rope_scaling=None)  # fmt: skip
MOST_ERROR = 1e-2
"""Of logits in bfloat16, relative; plain torch on a processor has 0.0095 on such a model."""
LENGTHS = (300, 17, 64, 1)


def logits_row(config: LlamaShape = SMALL, device: str = "cuda") -> Row:
    """The relative error of a prefill's logits and of a decode step's behind it."""
    torch.manual_seed(0)
    weights = {
        name: torch.ones(shape) if len(shape) == 1 else torch.randn(shape) * shape[1] ** -0.5
        for name, shape in weight_shapes(config).items()
    }
    half = {name: weight.bfloat16() for name, weight in weights.items()}
    exact = _logits(config, {name: weight.float() for name, weight in half.items()}, "cpu")
    found = _logits(config, half, device).cpu()
    error = float((found - exact).norm() / exact.norm())
    return Row("logits in bfloat16 against float32: relative error", "", error, 0.0, MOST_ERROR,
               is_difference=True)  # fmt: skip


@torch.no_grad()
def _logits(config: LlamaShape, weights: dict[str, Tensor], device: str) -> Tensor:
    dtype = weights["model.norm.weight"].dtype
    there = torch.device(device)
    cache = KvCache(config.config(), 64, 16, dtype, there)
    model = make_model(Weights(weights, config.config(), device=there), cache)
    return torch.cat([
        _step(model, device, [0] * len(LENGTHS), list(LENGTHS)),
        _step(model, device, list(LENGTHS), [1] * len(LENGTHS)),
    ])  # fmt: skip


def _step(model: Model, device: str, done: list[int], counts: list[int]) -> Tensor:
    """Sequence s has the blocks from 1 + 15 s on, backwards."""
    ends = torch.tensor(counts).cumsum(0)
    width = 1 + max(LENGTHS) // 16 + 1
    tables = torch.zeros(len(counts), width, dtype=torch.int32)
    first = 1
    for row, length in enumerate(LENGTHS):
        used = length // 16 + 1
        tables[row, :used] = torch.arange(first, first + used).flip(0)
        first += used
    rows = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    positions = torch.cat([
        torch.arange(start, start + count) for start, count in zip(done, counts, strict=True)
    ])  # fmt: skip
    inputs = StepInputs(
        token_ids=positions * 31 % 4001 + rows,
        positions=positions,
        slot_mapping=tables[rows, positions // 16].long() * 16 + positions % 16,
        query_starts=torch.nn.functional.pad(ends, (1, 0)).int(),
        sequence_lengths=torch.tensor(
            [start + count for start, count in zip(done, counts, strict=True)], dtype=torch.int32
        ),
        block_tables=tables,
        sample_rows=ends - 1,
    )
    return model.forward(inputs.to(torch.device(device)))


def tokens_row(llama: RandomLlama, num_requests: int = 24) -> Row:
    """How many of some requests get other tokens when steps overlap, and are replayed, than one by
    one. Steps are of the same rows in the same buckets, so none should."""
    requests = [(64, 32)] * num_requests  # so that all run together in either way
    ahead = llama.run(requests).tokens
    alone = llama.run(requests, overlaps=False).tokens
    differ = sum(ahead[name] != alone[name] for name in alone)
    return Row("requests with other tokens when steps overlap", "requests", differ, 0.0, 0.0,
               is_difference=True, note=f"of {num_requests}")  # fmt: skip
