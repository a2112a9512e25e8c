"""Our LLM engine, or transformers, without a server, in a process of its own:
`python -m bench.llm_alone SIDE MODEL STREAMS PROMPT_TOKENS NEW_TOKENS` prints figures as JSON."""

import json
import queue
import sys
import time
from itertools import pairwise
from statistics import quantiles
from typing import Any

import torch

from trivet.backends.api import Sampling
from trivet.backends.llm.device.devices import choose_dtype
from trivet.backends.llm.engine.assemble import make_engine
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.messages import Message, Outputs, Submit
from trivet.backends.llm.settings import EngineSettings

VOCABULARY = 40_000
BATCH = 16
"""Sequences at a time, where lengths differ."""


def prompts(count: int, size: int) -> list[list[int]]:
    """Different prompts, so that no prefix is shared."""
    return [[(31 * place + 977 * each) % VOCABULARY + 20 for place in range(size)]
            for each in range(count)]  # fmt: skip


def engine(model: str, count: int, size: int, num_new: int) -> dict[str, float]:
    """All streams at once through the engine; times as a client beside it sees them."""
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    settings = EngineSettings(model, prefix_caching=False)
    built, _ = make_engine(settings, seen.put)
    _run(built, seen, 1, 8, 4)  # the first step of a process is slow
    return _run(built, seen, count, size, num_new)


def continuous(model: str, count: int, size: int, num_new: int) -> dict[str, float]:
    """Requests of skewed lengths, each taken up when there is room."""
    return _skewed(model, count, size, num_new, at_a_time=count)


def static(model: str, count: int, size: int, num_new: int) -> dict[str, float]:
    """The same, a batch at a time: the next begins when the last of a batch has ended."""
    return _skewed(model, count, size, num_new, at_a_time=BATCH)


def _skewed(model: str, count: int, size: int, num_new: int, *, at_a_time: int) -> dict[str, float]:
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    settings = EngineSettings(model, prefix_caching=False, max_num_seqs=BATCH)
    built, _ = make_engine(settings, seen.put)
    _run(built, seen, 1, 8, 4)
    lengths = [num_new * 4 if index % 8 == 0 else num_new // 8 for index in range(count)]
    started_s = time.perf_counter()
    for first in range(0, count, at_a_time):
        for index in range(first, first + at_a_time):
            sampling = Sampling(max_tokens=lengths[index], temperature=0.0, ignore_eos=True)
            prompt = prompts(count, size)[index]
            built.inbox.put(Submit(f"s{index}", prompt, sampling, index, [], []))
        num_open = at_a_time
        while num_open:
            built._take_messages(wait=False)  # noqa: SLF001  # the loop without its thread
            built.step()
            while not seen.empty():
                message = seen.get()
                assert isinstance(message, Outputs)
                num_open -= sum(bool(output.finish) for output in message.each())
    return {"tokens_per_s": sum(lengths) / (time.perf_counter() - started_s)}


def _run(
    built: Engine, seen: queue.SimpleQueue[Message], count: int, size: int, num_new: int
) -> dict[str, float]:
    return generate(built, seen, prompts(count, size), num_new)


def generate(
    built: Engine, seen: queue.SimpleQueue[Message], given: list[list[int]], num_new: int
) -> dict[str, float]:
    """So many tokens to each prompt, all of them at once."""
    sampling = Sampling(max_tokens=num_new, temperature=0.0, ignore_eos=True)
    count = len(given)
    started_s = time.perf_counter()
    for index, prompt in enumerate(given):
        built.inbox.put(Submit(f"{len(prompt)}-{index}", prompt, sampling, index, [], []))
    times: dict[str, list[float]] = {}
    num_open = count
    while num_open:
        built._take_messages(wait=False)  # noqa: SLF001  # the loop without its thread
        built.step()
        while not seen.empty():
            message = seen.get()
            now_s = time.perf_counter()
            assert isinstance(message, Outputs)
            for output in message.each():
                times.setdefault(output.id, []).append(now_s)
                num_open -= bool(output.finish)
    elapsed_s = time.perf_counter() - started_s
    first = [each[0] - started_s for each in times.values()]
    gaps = [b - a for each in times.values() for a, b in pairwise(each)]
    return {
        "tokens_per_s": count * num_new / elapsed_s,
        **_spread("ttft", first),
        **_spread("itl", gaps),
    }


def transformers(model: str, count: int, size: int, num_new: int) -> dict[str, float]:
    """One static batch through `generate`, greedy, with the same weights and type."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(2)
    # A Hugging Face folder: it would keep GGUF's weights packed, and be slower.
    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=choose_dtype("auto"))
    ids = torch.tensor(prompts(count, size))
    arguments: dict[str, Any] = {
        "do_sample": False,
        "attention_mask": torch.ones_like(ids),
        "pad_token_id": 0,
    }
    loaded.generate(ids[:1, :8], max_new_tokens=4, **arguments | {"attention_mask": None})
    found = {}
    for name, new in (("first", 1), ("all", num_new)):
        started_s = time.perf_counter()
        loaded.generate(ids, max_new_tokens=new, min_new_tokens=new, **arguments)
        found[name] = time.perf_counter() - started_s
    itl_s = (found["all"] - found["first"]) / (num_new - 1)
    return {
        "tokens_per_s": count * num_new / found["all"],
        **_spread("ttft", [found["first"]]),
        **_spread("itl", [itl_s]),
    }


def _spread(name: str, values_s: list[float]) -> dict[str, float]:
    cuts = quantiles(values_s, n=100, method="inclusive") if len(values_s) > 1 else values_s * 99
    return {f"{name}_p50_ms": cuts[49] * 1e3, f"{name}_p99_ms": cuts[98] * 1e3}


SIDES = {
    "engine": engine,
    "transformers": transformers,
    "continuous": continuous,
    "static": static,
}

if __name__ == "__main__":
    side, path, *numbers = sys.argv[1:]
    print(json.dumps(SIDES[side](path, *map(int, numbers))))
