"""Whole requests through a model of transformers' classes: our engine around it, next to
transformers' own continuous batching."""

import logging
import queue
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bench.figures import Figures, Row, in_turn, ratio_row
from bench.llm_alone import generate
from bench.llm_decoders import BLOCK_SIZE, CONTEXT, DTYPE, MOST_STREAMS, Decoder
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.messages import Message
from trivet.backends.llm.sampling.grammar import NoGrammars
from trivet.backends.llm.scheduling.batch_state import BatchState
from trivet.backends.llm.scheduling.blocks import BlockPool
from trivet.backends.llm.scheduling.scheduler import Scheduler
from trivet.backends.llm.steps.runner import Model, TorchRunner

STREAMS, PROMPT_TOKENS, NEW_TOKENS = 16, 32, 16
LEAST_OF_THEIRS = 3.0
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


def bench_generating(sizes: Mapping[str, Any], rounds: int) -> Row:
    """Tokens a second of requests that come all at once."""
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)  # of a kept manager
    weights = Decoder.of("Llama", **sizes).weights
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    engine = _engine(fallback_of(sizes, weights), seen)
    theirs = llama_of(sizes, weights)
    sides = {
        "ours": lambda: _ours(engine, seen),
        "bare": lambda: _theirs(theirs),
    }
    for warm_up in sides.values():
        warm_up()
    cell = f"Llama by transformers' class in our engine next to generate_batch, {STREAMS} requests"
    try:
        return ratio_row(cell, "tokens/s", in_turn(sides, rounds), LEAST_OF_THEIRS)
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


def _prompts() -> list[list[int]]:
    return [[(31 * place + 97 * each) % 9000 + 20 for place in range(PROMPT_TOKENS)]
            for each in range(STREAMS)]  # fmt: skip
