"""Whole requests through a model of transformers' classes: our engine around it, next to
transformers' own continuous batching."""

import logging
import queue
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.figures import Figures, Measure, Row, in_turn, ratio_row
from bench.llm_alone import generate
from bench.llm_decoders import BLOCK_SIZE, CONTEXT, DTYPE, MOST_STREAMS, Decoder, decode_step
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.foreign.products import product_of
from trivet.backends.llm.implementations import attention_of, make_model
from trivet.backends.llm.matrices.matrix import Product
from trivet.backends.llm.messages import Message
from trivet.backends.llm.sampling.grammar import NoGrammars
from trivet.backends.llm.scheduling.batch_state import BatchState
from trivet.backends.llm.scheduling.blocks import BlockPool
from trivet.backends.llm.scheduling.scheduler import Scheduler
from trivet.backends.llm.steps.runner import Model, TorchRunner
from trivet.backends.llm.weights.taking import Weights

STREAMS, PROMPT_TOKENS, NEW_TOKENS = 16, 32, 64
LEAST_OF_THEIRS = 3.0
_TOGETHER = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",),
)  # fmt: skip
"""A layer's products, by the matrices that read the same states."""
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
    from trivet.backends.llm.foreign.plan import ModelTensors
    from trivet.backends.llm.foreign.planning import plan_model

    made = llama_of(sizes, weights)
    plan = plan_model(made, DTYPE, MOST_STREAMS)
    cache = KvCache(plan.config, _NUM_BLOCKS, BLOCK_SIZE, DTYPE)
    return make_model(Weights(ModelTensors(made, plan), plan.config), cache)


def bench_generating(sizes: Mapping[str, Any], rounds: int) -> list[Row]:
    """Tokens a second of requests that come all at once; and what would come if steps were their
    products and attention and nothing else, with no model's code around them."""
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)  # of a kept manager
    decoder = Decoder.of("Llama", **sizes)
    weights = decoder.weights
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    model = fallback_of(sizes, weights)
    engine = _engine(model, seen)
    theirs = llama_of(sizes, weights)
    bare = BareSteps(decoder)
    sides: dict[str, Measure] = {
        "ours": lambda: _ours(engine, seen),
        "theirs": lambda: _theirs(theirs),
        "bare": bare.run,
    }
    in_turn(sides, 1)  # to warm up
    cell = f"Llama by transformers' class in our engine, {STREAMS} requests, next to"
    bound = "the products and attention of its steps alone"
    try:
        found = in_turn(sides, rounds)
        to_theirs = {"ours": found["ours"], "bare": found["theirs"]}
        limit = {"ours": found["bare"], "bare": found["theirs"]}
        return [
            ratio_row(f"{cell} generate_batch", "tokens/s", to_theirs, LEAST_OF_THEIRS),
            ratio_row(f"{cell} {bound}", "tokens/s", found, None),
            ratio_row(f"{bound} next to generate_batch", "tokens/s", limit, None),
        ]
    finally:
        theirs.destroy_cached_continuous_batching_manager()


class BareSteps:
    """What a model's steps multiply and attend to, one after the other: as it is served, with what
    reads the same states as one product."""

    def __init__(self, decoder: Decoder) -> None:
        config, weights = decoder.config, decoder.weights
        cache = KvCache(config, _NUM_BLOCKS, BLOCK_SIZE, DTYPE)
        # As transformers hands states on: rotated.
        kinds = [replace(kind, rope=None) for kind in config.attentions]
        self._attention = attention_of(cache, kinds) or TorchAttention(cache, kinds)
        self._heads = [(kind.num_heads, kind.num_kv_heads, kind.head_dim) for kind in kinds]
        self._products: list[tuple[Product, int]] = []
        for layer in range(config.num_layers):
            for names in _TOGETHER:
                stems = [f"model.layers.{layer}.{name}.weight" for name in names]
                self._add(torch.cat([weights[stem] for stem in stems]))
        self._head = product_of(weights["lm_head.weight"], None)
        self._hidden = config.hidden_size

    def _add(self, weight: Tensor) -> None:
        self._products.append((product_of(weight, None), weight.shape[1]))

    @torch.no_grad()
    def run(self) -> Figures:
        """As often as all requests have steps; prompts without their attention."""
        started_s = time.perf_counter()
        self._multiply(STREAMS * PROMPT_TOKENS)
        step = decode_step(STREAMS, PROMPT_TOKENS + NEW_TOKENS // 2)
        for _ in range(NEW_TOKENS - 1):
            self._multiply(STREAMS)
            self._attend(step)
        return {"rate_per_s": STREAMS * NEW_TOKENS / (time.perf_counter() - started_s)}

    def _multiply(self, rows: int) -> None:
        states = {size: torch.zeros(rows, size, dtype=DTYPE) for _, size in self._products}
        for product, size in self._products:
            product(states[size])
        self._head(torch.zeros(STREAMS, self._hidden, dtype=DTYPE))

    def _attend(self, step: StepInputs) -> None:
        self._attention.begin(step)
        for layer, (heads, kv_heads, size) in enumerate(self._heads):
            query = torch.zeros(STREAMS, heads, size, dtype=DTYPE)
            key = query[:, :kv_heads].contiguous()
            self._attention.attend(layer, query, key, key)


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
