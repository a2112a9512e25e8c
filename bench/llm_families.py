"""A Llama computed by transformers' classes next to our own torch model: the same decode steps, in
turn, over caches of the same shape."""

import random
import time
from collections.abc import Sequence
from typing import Any

import torch

from bench.figures import Figures, Row, alternate
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.device.devices import choose_dtype
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.taking import Weights

SHAPE: dict[str, Any] = {
    "vocab_size": 16_000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12,
    "num_attention_heads": 16, "num_key_value_heads": 8, "max_position_embeddings": 2048,
}  # fmt: skip
STREAMS = (1, 16, 32)
CONTEXT = 256
BLOCK_SIZE = 16
LEAST_RATIO = 0.85
MIN_STEPS = 3


def bench_llm_families(seconds: float, rounds: int) -> list[Row]:
    """Tokens a second of decode steps, medians of rounds."""
    dtype = choose_dtype("auto")
    rows = []
    ours, theirs = _both(dtype)
    for streams in STREAMS:
        inputs = _decode_step(streams)
        found = alternate(
            {
                "ours": lambda: _rate(ours, inputs, seconds),  # noqa: B023
                "theirs": lambda: _rate(theirs, inputs, seconds),  # noqa: B023
            },
            rounds,
        )
        cell = f"Llama by transformers' class next to our torch model, {streams} streams"
        theirs_rate, own_rate = (found[side]["rate_per_s"] for side in ("theirs", "ours"))
        rows.append(Row(cell, "tokens/s", theirs_rate, own_rate, LEAST_RATIO))
    return rows


def _both(dtype: torch.dtype) -> tuple[Model, Model]:
    import transformers

    from trivet.backends.llm.foreign.planning import plan_model
    from trivet.backends.llm.foreign.products import pack_products

    config = transformers.LlamaConfig(**SHAPE)
    config.architectures = ["LlamaForCausalLM"]
    torch.manual_seed(3)
    made: Any = transformers.LlamaForCausalLM(config).to(dtype).eval()
    own = from_hub(config.to_dict())
    weights = {name: weight.clone() for name, weight in made.state_dict().items()}
    cache = _cache(own, dtype)
    ours = TorchDecoder(Weights(weights, own), TorchAttention(cache, own.attentions))
    plan = plan_model(made, dtype, max(STREAMS))
    pack_products(made, plan.config.vocabulary_size)
    cache = _cache(plan.config, dtype)
    return ours, plan.make(cache, TorchAttention(cache, plan.config.attentions))


def _cache(config: LlmConfig, dtype: torch.dtype) -> KvCache:
    return KvCache(config, _blocks_of(max(STREAMS)) + 1, BLOCK_SIZE, dtype)


def _blocks_of(streams: int) -> int:
    return streams * CONTEXT // BLOCK_SIZE


@torch.no_grad()
def _rate(model: Model, inputs: StepInputs, seconds: float) -> Figures:
    model.forward(inputs)
    done, started_s = 0, time.perf_counter()
    while done < MIN_STEPS or time.perf_counter() - started_s < seconds / 2:
        model.forward(inputs)
        done += 1
    elapsed_s = time.perf_counter() - started_s
    return {"rate_per_s": done * len(inputs.token_ids) / elapsed_s}


def _decode_step(streams: int) -> StepInputs:
    """A token of each, behind CONTEXT - 1 others, in blocks that lie anywhere."""
    blocks = list(range(1, _blocks_of(streams) + 1))
    random.Random(1).shuffle(blocks)
    tables = torch.tensor(blocks, dtype=torch.int32).view(streams, -1)
    last: Sequence[int] = tables[:, -1].tolist()
    return StepInputs(
        token_ids=torch.arange(streams) + 20,
        positions=torch.full((streams,), CONTEXT - 1),
        slot_mapping=torch.tensor([block * BLOCK_SIZE + BLOCK_SIZE - 1 for block in last]),
        query_starts=torch.arange(streams + 1, dtype=torch.int32),
        sequence_lengths=torch.full((streams,), CONTEXT, dtype=torch.int32),
        block_tables=tables,
        sample_rows=torch.arange(streams),
    )
