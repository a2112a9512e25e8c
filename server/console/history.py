"""An hour of charts: what models did in each interval, from counters that only rise. Pure."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import orjson

PERIOD_S = 5.0
KEPT = 720
"""Intervals: an hour of them."""
MOST_MODELS = 64
"""Of an interval: the busiest. What all did together is there besides."""
COLUMNS = (
    "requests", "failures", "p50_ms", "p90_ms", "p99_ms", "queue_ms", "waiting", "batch", "tokens",
    "cache", "hits",
)  # fmt: skip
"""Of a model: requests, failures, generated tokens and cache hits a second; latencies and the mean
time in the queue; requests that wait; rows of a batch; the used share of a key/value cache."""
_QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a model version has counted so far, or in an interval."""

    bounds_s: tuple[float, ...]
    """Upper bounds of the buckets of latencies; the last bucket has none."""
    latencies: tuple[int, ...]
    """Answered requests in each."""
    queued_s: float = 0.0
    failed: int = 0
    executions: int = 0
    rows: float = 0.0
    tokens: int = 0
    hits: int = 0
    waiting: int = 0
    """Now."""
    cache: float | None = None
    """Now; None: it has none."""

    @property
    def answered(self) -> int:
        """Requests."""
        return sum(self.latencies)

    def since(self, before: "Counts | None") -> "Counts":
        """What came in between. Counters that have begun anew have nothing before."""
        if before is None or before.answered > self.answered or before.tokens > self.tokens:
            return self
        return replace(
            self,
            latencies=tuple(a - b for a, b in zip(self.latencies, before.latencies, strict=True)),
            queued_s=self.queued_s - before.queued_s,
            failed=self.failed - before.failed,
            executions=self.executions - before.executions,
            rows=self.rows - before.rows,
            tokens=self.tokens - before.tokens,
            hits=self.hits - before.hits,
        )


class History:
    """The last intervals, each as the JSON that is sent of it. Owned by the event loop."""

    def __init__(self, started_ms: int) -> None:
        """`started_ms`: what tells this server's numbers from those of one before it."""
        self._started_ms = started_ms
        self._number = 0
        self._samples: deque[bytes] = deque(maxlen=KEPT)

    def take(
        self,
        now_ms: int,
        seconds: float,
        models: Mapping[str, Sequence[Counts]],
        server: Mapping[str, float],
    ) -> None:
        """What the versions of each model did in the last so many seconds."""
        together = [each for counts in models.values() for each in counts]
        busiest = sorted(models, key=lambda name: -sum(each.answered for each in models[name]))
        self._number += 1
        sample = {
            "t": now_ms,
            "server": server,
            "all": figures(together, seconds),
            "models": {name: figures(models[name], seconds) for name in busiest[:MOST_MODELS]},
        }
        self._samples.append(orjson.dumps(sample))

    def since(self, number: int) -> list[bytes]:
        """JSON, in pieces, of what came after the interval of that number, 0 for all."""
        wanted = self._number - number if 0 <= number <= self._number else KEPT
        samples = list(self._samples)[max(0, len(self._samples) - wanted) :]
        head = {
            "started": self._started_ms, "number": self._number, "period_s": PERIOD_S,
            "kept": KEPT, "columns": COLUMNS,
        }  # fmt: skip
        return [orjson.dumps(head)[:-1], b',"samples":[', b",".join(samples), b"]}"]


def figures(counts: Sequence[Counts], seconds: float) -> list[float | None]:
    """The columns of what these did together in so many seconds."""
    answered = sum(each.answered for each in counts)
    executions = sum(each.executions for each in counts)
    caches = [each.cache for each in counts if each.cache is not None]
    latencies = quantiles(counts)
    return [
        answered / seconds,
        sum(each.failed for each in counts) / seconds,
        *(None if each is None else each * 1e3 for each in latencies),
        sum(each.queued_s for each in counts) / answered * 1e3 if answered else None,
        sum(each.waiting for each in counts),
        sum(each.rows for each in counts) / executions if executions else None,
        sum(each.tokens for each in counts) / seconds,
        max(caches, default=None),
        sum(each.hits for each in counts) / seconds,
    ]


def quantiles(counts: Sequence[Counts]) -> list[float | None]:
    """The median, the 90th and the 99th percentile of latencies in seconds, as exactly as buckets
    know them; None without a request."""
    buckets = sorted(bucket for each in counts for bucket in _buckets(each))
    total = sum(count for _, _, count in buckets)
    if not total:
        return [None] * len(_QUANTILES)
    found: list[float | None] = []
    for quantile in _QUANTILES:
        rest = quantile * total
        for high, low, count in buckets:
            if rest <= count:
                found.append(low + (high - low) * rest / count)
                break
            rest -= count
        else:
            found.append(buckets[-1][0])
    return found


def _buckets(counts: Counts) -> Iterator[tuple[float, float, int]]:
    """Upper bound, lower bound and count of those that have any. Of what lies above the last bound
    no more is known."""
    edges = (0.0, *counts.bounds_s, counts.bounds_s[-1])
    for (low, high), count in zip(pairwise(edges), counts.latencies, strict=True):
        if count:
            yield high, low, count
