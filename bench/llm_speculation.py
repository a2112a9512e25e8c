"""Guessed tokens: an engine that guesses next to the same one that does not, in one process.

Three kinds of texts. Those that repeat their prompt, as editing and extraction do: a real model
goes on with texts of which it has the beginning twice. Those where a smaller model says nearly the
same: a made pair, of which the larger one has the layers of the smaller and nine times as many
behind them, scaled so that about 0.7 of the guesses are right. And those where nothing helps: a
real model draws at a high temperature.
"""

import queue
import time
from collections.abc import Callable
from functools import partial

import torch

from bench.figures import Figures, Row, in_turn, ratio_row
from bench.llm import MODEL
from bench.llm_alone import prompts
from bench.llm_decoders import BLOCK_SIZE, Decoder
from trivet.backends.api import Sampling
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.device.devices import choose_dtype
from trivet.backends.llm.engine.assemble import make_engine
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.implementations import make_model
from trivet.backends.llm.messages import Message, Outputs, Submit
from trivet.backends.llm.sampling.grammar import NoGrammars
from trivet.backends.llm.scheduling.batch_state import BatchState
from trivet.backends.llm.scheduling.blocks import BlockPool
from trivet.backends.llm.scheduling.scheduler import Scheduler
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.speculation.draft_model import DraftModel
from trivet.backends.llm.speculation.speculation import Speculation
from trivet.backends.llm.steps.runner import TorchRunner
from trivet.backends.llm.text.tokenizer import Tokenizer
from trivet.backends.llm.weights.documents import load_tokenizer_files
from trivet.backends.llm.weights.taking import Weights

LEAST_REPEATING, LEAST_WITH_DRAFT, LEAST_ELSEWHERE = 2.0, 1.5, 0.97
TEXTS = (
    """def total(prices, taxes):
    amount = 0
    for price, tax in zip(prices, taxes):
        amount += price * (1 + tax)
    return round(amount, 2)
""",
    """Name: Ada Lovelace
Born: 10 December 1815
City: London
Work: notes on the analytical engine
Language: English
""",
    """The meeting is moved from Tuesday at ten to Thursday at half past two. Please bring the
figures of the last quarter, and tell the office in Lyon that the room has changed.
""",
    """{"id": 4711, "items": [{"sku": "A-17", "count": 3}, {"sku": "B-02", "count": 1}],
 "address": {"street": "Long Lane 5", "town": "Leeds"}}
""",
)
SIZES = {
    "vocab_size": 8192, "hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16,
    "num_key_value_heads": 4, "tie_word_embeddings": True, "max_position_embeddings": 512,
}  # fmt: skip
LAYERS, DRAFT_LAYERS = 30, 3
SCALE = 0.004
"""Of what the layers behind the smaller model's add: about 0.7 of the guesses are right then."""
NEW_TOKENS = 96
Run = Callable[[], Figures]


def bench_llm_speculation(seconds: float, rounds: int) -> list[Row]:  # noqa: ARG001  # a round is one run
    """Tokens a second."""
    return [_repeating(rounds), _with_draft(rounds), *_elsewhere(rounds)]


def _repeating(rounds: int) -> Row:
    encode = Tokenizer.from_files(load_tokenizer_files(MODEL)).encode
    given = [encode(f"{text}{text}{text[:16]}", add_special_tokens=False) for text in TEXTS]
    greedy = Sampling(max_tokens=NEW_TOKENS, temperature=0.0, ignore_eos=True)
    sides: dict[str, Run] = {
        "ours": partial(_alone, *_real('{"method": "ngram"}'), given, greedy),
        "bare": partial(_alone, *_real(""), given, greedy),
    }
    cell = "texts that repeat their prompt, guessed by lookup, next to none guessed, 1 stream"
    return _row(cell, sides, rounds, LEAST_REPEATING)


def _with_draft(rounds: int) -> Row:
    given = [[token % 8000 for token in prompt] for prompt in prompts(4, 32)]
    drawn = Sampling(max_tokens=NEW_TOKENS, temperature=1.0, ignore_eos=True)
    engines = {"ours": _pair(guesses=True), "bare": _pair(guesses=False)}
    sides: dict[str, Run] = {
        name: partial(_alone, engine, seen, given, drawn)
        for name, (engine, seen) in engines.items()
    }
    in_turn(sides, 1)  # to warm up
    found = in_turn(sides, rounds)
    speculation = engines["ours"][0]._speculation  # noqa: SLF001  # what no client asks for
    assert speculation is not None
    right = sum(speculation.accepted.values()) / speculation.num_tried
    cell = "a model of a tenth of the cost guesses, next to none guessed, 1 stream"
    note = f"{right:.2f} of the guesses right"
    return ratio_row(cell, "tokens/s", found, LEAST_WITH_DRAFT, note=note)


def _elsewhere(rounds: int) -> list[Row]:
    drawn = Sampling(max_tokens=NEW_TOKENS, temperature=1.5, ignore_eos=True)
    engines = [_real('{"method": "ngram"}'), _real("")]
    rows = []
    for streams in (1, 16):
        sides: dict[str, Run] = {
            name: partial(_together, engine, seen, prompts(streams, 32), drawn)
            for name, (engine, seen) in zip(("ours", "bare"), engines, strict=True)
        }
        cell = f"texts where lookup finds nothing, next to none guessed, {streams} streams"
        rows.append(_row(cell, sides, rounds, LEAST_ELSEWHERE))
    return rows


def _row(cell: str, sides: dict[str, Run], rounds: int, bar: float) -> Row:
    in_turn(sides, 1)  # to warm up
    return ratio_row(cell, "tokens/s", in_turn(sides, rounds), bar)


Opened = tuple[Engine, queue.SimpleQueue[Message]]


def _real(speculative_config: str) -> Opened:
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    settings = EngineSettings(
        str(MODEL), prefix_caching=False, max_loras=0, max_model_len=1024,
        kv_cache_bytes=1 << 28, speculative_config=speculative_config,
    )  # fmt: skip
    engine, _ = make_engine(settings, seen.put)
    return engine, seen


def _pair(*, guesses: bool) -> Opened:
    """The larger model's engine."""
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    large = Decoder.of("Llama", num_hidden_layers=LAYERS, **SIZES)
    small = Decoder.of("Llama", num_hidden_layers=DRAFT_LAYERS, **SIZES)
    for name, weight in large.weights.items():
        part = name.split(".")
        if (
            part[1] == "layers"
            and int(part[2]) >= DRAFT_LAYERS
            and part[-2] in ("o_proj", "down_proj")
        ):
            large.weights[name] = weight * SCALE
    small.weights.update({name: large.weights[name] for name in small.weights})
    blocks = 256
    scheduler = Scheduler(
        BlockPool(blocks, BLOCK_SIZE), max_num_seqs=16, max_batched_tokens=512,
        block_size=BLOCK_SIZE, enable_prefix_caching=False, max_model_len=512,
    )  # fmt: skip
    state = BatchState(max_num_seqs=16, max_model_len=512, block_size=BLOCK_SIZE)
    speculation = None
    if guesses:
        drafter = DraftModel(_runner(small, blocks), state, 512, small.config.vocabulary_size)
        speculation = Speculation(drafter, 5)
    engine = Engine(
        scheduler, state, _runner(large, blocks), NoGrammars(), seen.put, speculation=speculation
    )
    return engine, seen


def _runner(decoder: Decoder, blocks: int) -> TorchRunner:
    cache = KvCache(decoder.config, blocks, BLOCK_SIZE, choose_dtype("auto"))
    return TorchRunner(make_model(Weights(decoder.weights, decoder.config), cache))


def _alone(
    engine: Engine, seen: queue.SimpleQueue[Message], given: list[list[int]], sampling: Sampling
) -> Figures:
    """One after the other."""
    spent_s = sum(
        _seconds(engine, seen, [prompt], sampling, first=n) for n, prompt in enumerate(given)
    )
    return {"rate_per_s": len(given) * NEW_TOKENS / spent_s}


def _together(
    engine: Engine, seen: queue.SimpleQueue[Message], given: list[list[int]], sampling: Sampling
) -> Figures:
    return {
        "rate_per_s": len(given) * NEW_TOKENS / _seconds(engine, seen, given, sampling, first=0)
    }


@torch.no_grad()
def _seconds(
    engine: Engine,
    seen: queue.SimpleQueue[Message],
    given: list[list[int]],
    sampling: Sampling,
    first: int,
) -> float:
    """Until all are told."""
    started_s = time.perf_counter()
    for number, prompt in enumerate(given):
        engine.inbox.put(Submit(f"{first}-{number}", prompt, sampling, first + number, [], []))
    missing = len(given)
    while missing:
        engine._take_messages(wait=False)  # noqa: SLF001  # the loop without its thread
        engine.step()
        while not seen.empty():
            message = seen.get()
            assert isinstance(message, Outputs)
            missing -= sum(bool(output.finish) for output in message.each())
    return time.perf_counter() - started_s
