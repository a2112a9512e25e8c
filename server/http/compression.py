"""Compressed answers, for clients that accept them."""

import asyncio
import zlib
from collections.abc import Sequence
from functools import lru_cache

from trivet.server.http.answers import Buffer

LEVELS = {"none": 0, "low": 1, "medium": 6, "high": 9}
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
LEAST_BYTES = 1024
"""Below, the head and one packet are all there is to save."""
_SAMPLE_BYTES = 64 * 1024
_WORTH_IT = 0.8
"""Floating point numbers hardly shrink, and compressing them takes a hundred times as long as
sending them: a sample tells."""


@lru_cache(maxsize=256)
def accepted_coding(header: str) -> str | None:
    """The coding of an Accept-Encoding header that the client likes best; None: none of ours."""
    weights: dict[str, float] = {}
    for part in header.split(","):
        name, _, parameter = part.partition(";")
        weights[name.strip().lower()] = _weight(parameter)
    rest = weights.get("*", 0.0)
    best = max(_WINDOW_BITS, key=lambda name: weights.get(name, rest))
    weight = weights.get(best, rest)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else None


def _weight(parameter: str) -> float:
    key, _, value = parameter.strip().partition("=")
    if not key:
        return 1.0
    try:
        return float(value) if key.strip().lower() == "q" else 0.0
    except ValueError:
        return 0.0


def is_worth_it(parts: Sequence[Buffer]) -> bool:
    """Whether an answer is large enough to be compressed."""
    return sum(map(len, parts)) >= LEAST_BYTES


async def compress(parts: Sequence[Buffer], coding: str, level: int) -> bytes | None:
    """The parts as one, compressed; None where they hardly shrink. The event loop goes on."""
    if sum(map(len, parts)) <= _SAMPLE_BYTES:
        return _compress(parts, coding, level)
    return await asyncio.to_thread(_compress, parts, coding, level)


def _compress(parts: Sequence[Buffer], coding: str, level: int) -> bytes | None:
    largest = max(parts, key=len)
    sample = memoryview(largest)[:_SAMPLE_BYTES]
    if len(zlib.compress(sample, 1)) > _WORTH_IT * len(sample):
        return None
    deflator = zlib.compressobj(level, wbits=_WINDOW_BITS[coding])
    packed = [deflator.compress(part) for part in parts]
    return b"".join((*packed, deflator.flush()))
