"""One client for any OpenAI server: `python -m bench.llm_http URL MODEL STREAMS PROMPT_TOKENS
SHARED_TOKENS NEW_TOKENS ROUNDS SEED` prints figures as JSON. A round's streams start together."""

import asyncio
import json
import random
import sys
import time
from statistics import quantiles

import aiohttp

NOUNS = (
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work government "
    "number night point home water room mother area money story fact month lot right study book "
    "eye job word business issue side kind head house service friend father power hour game line "
    "end member law car city community name president team minute idea body information back"
)
"""Each, with the space before it, is one token of nearly any vocabulary."""
WORDS = NOUNS.split()


def prompt(rng: random.Random, count: int) -> str:
    """About so many tokens."""
    return " ".join(rng.choice(WORDS) for _ in range(count))


async def stream(session: aiohttp.ClientSession, url: str, body: dict[str, object]) -> list[float]:
    """Times of a request's start and of each event with text."""
    times = [time.perf_counter()]
    async with session.post(f"{url}/v1/completions", json=body) as answer:
        if answer.status != 200:
            raise SystemExit(await answer.text())
        times += [
            time.perf_counter()
            async for line in answer.content
            if line.startswith(b"data: {") and b'"text":""' not in line.replace(b": ", b":")
        ]
    return times


async def measure(
    url: str, model: str, streams: int, size: int, shared: int, new: int, rounds: int, seed: int
) -> dict[str, float]:
    """Output tokens per second, milliseconds to the first token and between tokens."""
    rng = random.Random(seed)
    prefix = prompt(rng, shared)
    body = {"model": model, "max_tokens": new, "temperature": 0, "stream": True, "ignore_eos": True}
    timeout = aiohttp.ClientTimeout(total=600)
    found: list[list[float]] = []
    elapsed_s = 0.0
    # llama.cpp's server closes connections that it has said to keep.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        if shared:  # the prefix is known, as it is in service
            await stream(session, url, body | {"prompt": prefix, "max_tokens": 1})
        for _ in range(rounds):
            started_s = time.perf_counter()
            prompts = [f"{prefix} {prompt(rng, size)}".strip() for _ in range(streams)]
            found += await asyncio.gather(
                *(stream(session, url, body | {"prompt": text}) for text in prompts)
            )
            elapsed_s += time.perf_counter() - started_s
    first = [times[1] - times[0] for times in found]
    gaps = [(times[-1] - times[1]) / (new - 1) for times in found]
    return {
        "tokens_per_s": streams * rounds * new / elapsed_s,
        **_spread("ttft", first),
        **_spread("itl", gaps),
        "events": sum(len(times) - 1 for times in found) / len(found),
    }


def _spread(name: str, values_s: list[float]) -> dict[str, float]:
    cuts = quantiles(values_s, n=100, method="inclusive") if len(values_s) > 1 else values_s * 99
    return {f"{name}_p50_ms": cuts[49] * 1e3, f"{name}_p99_ms": cuts[98] * 1e3}


if __name__ == "__main__":
    address, name, *numbers = sys.argv[1:]
    print(json.dumps(asyncio.run(measure(address, name, *map(int, numbers)))))
