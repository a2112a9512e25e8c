"""Whole requests through a model of transformers' classes: our engine around it, next to
transformers' own continuous batching."""

import logging
import queue
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.figures import Figures, Measure, Row, in_turn, ratio_row
from bench.llm_alone import generate
from bench.llm_decoders import BLOCK_SIZE, CONTEXT, DTYPE, MOST_STREAMS, Decoder
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.matrix import Product
from trivet.backends.llm.messages import Message
from trivet.backends.llm.sampling.grammar import NoGrammars
from trivet.backends.llm.scheduling.batch_state import BatchState
from trivet.backends.llm.scheduling.blocks import BlockPool
from trivet.backends.llm.scheduling.scheduler import Scheduler
from trivet.backends.llm.steps.runner import Model, TorchRunner

STREAMS, PROMPT_TOKENS, NEW_TOKENS = 16, 32, 64
LEAST_OF_THEIRS = 3.0
_MATRIX = len(("outputs", "inputs"))
_NUM_BLOCKS = MOST_STREAMS * CONTEXT // BLOCK_SIZE + 1


def llama_of(sizes: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Any:
    """transformers' own model of these weights."""
    import transformers

    config = transformers.LlamaConfig(**sizes)
    made: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=DTYPE).eval()
    made.load_state_dict(weights)
    return made


def fallback_of(sizes: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Model:
    """As a model without a family is computed."""
    from trivet.backends.llm.foreign.planning import plan_model
    from trivet.backends.llm.foreign.products import pack_products

    made = llama_of(sizes, weights)
    plan = plan_model(made, DTYPE, MOST_STREAMS)
    pack_products(made, plan.config.vocabulary_size)
    cache = KvCache(plan.config, _NUM_BLOCKS, BLOCK_SIZE, DTYPE)
    return plan.make(cache, TorchAttention(cache, plan.config.attentions))


def bench_generating(sizes: Mapping[str, Any], rounds: int) -> list[Row]:
    """Tokens a second of requests that come all at once; and what would come if a step were the
    products of its weights and nothing else, which no way of calling them passes."""
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)  # of a kept manager
    weights = Decoder.of("Llama", **sizes).weights
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    engine = _engine(fallback_of(sizes, weights), seen)
    theirs = llama_of(sizes, weights)
    products = _matrices(weights)
    sides: dict[str, Measure] = {
        "ours": lambda: _ours(engine, seen),
        "bare": lambda: _theirs(theirs),
        "products": lambda: _products(products),
    }
    in_turn(sides, 1)  # to warm up
    cell = f"Llama by transformers' class in our engine next to generate_batch, {STREAMS} requests"
    try:
        found = in_turn(sides, rounds)
        limit = {"ours": found["products"], "bare": found["bare"]}
        return [
            ratio_row(cell, "tokens/s", found, LEAST_OF_THEIRS),
            ratio_row("the products alone next to generate_batch", "tokens/s", limit, None),
        ]
    finally:
        theirs.destroy_cached_continuous_batching_manager()


def _engine(model: Model, seen: queue.SimpleQueue[Message]) -> Engine:
    scheduler = Scheduler(
        BlockPool(_NUM_BLOCKS, BLOCK_SIZE),
        max_num_seqs=STREAMS,
        max_batched_tokens=512,
        block_size=BLOCK_SIZE,
        enable_prefix_caching=False,
        max_model_len=CONTEXT,
    )
    state = BatchState(max_num_seqs=STREAMS, max_model_len=CONTEXT, block_size=BLOCK_SIZE)
    return Engine(scheduler, state, TorchRunner(model), NoGrammars(), seen.put)


def _ours(engine: Engine, seen: queue.SimpleQueue[Message]) -> Figures:
    found = generate(engine, seen, _prompts(), NEW_TOKENS)
    return {"rate_per_s": found["tokens_per_s"]}


def _theirs(model: Any) -> Figures:
    import transformers

    settings = transformers.GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    # Without a number of blocks it would take most of the machine's memory.
    batching = transformers.ContinuousBatchingConfig(num_blocks=4 * STREAMS, max_batch_tokens=512)
    started_s = time.perf_counter()
    outputs = model.generate_batch(
        _prompts(), generation_config=settings, continuous_batching_config=batching,
        persistent_manager=True, warmup=False,
    )  # fmt: skip
    elapsed_s = time.perf_counter() - started_s
    count = sum(len(each.generated_tokens) for each in outputs.values())
    assert count == STREAMS * NEW_TOKENS
    return {"rate_per_s": count / elapsed_s}


def _matrices(weights: Mapping[str, Tensor]) -> list[tuple[Product, Tensor, Tensor]]:
    """All products, each with rows of a step of prompts, and of one behind it."""
    made = []
    for name, weight in weights.items():
        if weight.dim() == _MATRIX and "embed" not in name:
            prompts = torch.zeros(STREAMS * PROMPT_TOKENS, weight.shape[1], dtype=DTYPE)
            rows = prompts[:STREAMS].clone()
            made.append((Dense(weight).product(), rows if "head" in name else prompts, rows))
    return made


@torch.no_grad()
def _products(products: Sequence[tuple[Product, Tensor, Tensor]]) -> Figures:
    """All of a model, one after the other, as often as its requests have steps."""
    started_s = time.perf_counter()
    for product, prompts, _ in products:
        product(prompts)
    for _ in range(NEW_TOKENS - 1):
        for product, _, rows in products:
            product(rows)
    return {"rate_per_s": STREAMS * NEW_TOKENS / (time.perf_counter() - started_s)}


def _prompts() -> list[list[int]]:
    return [[(31 * place + 97 * each) % 9000 + 20 for place in range(PROMPT_TOKENS)]
            for each in range(STREAMS)]  # fmt: skip
