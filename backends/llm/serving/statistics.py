"""Times and counts the requests of a model: stands between a request and its sink."""

import time
from collections import Counter
from collections.abc import Callable

from trivet.backends.api import (
    Cancelled,
    Chunk,
    DeadlineExceeded,
    GenerateRequest,
    GenerateSink,
    GenerateStatistics,
    InvalidRequest,
    QueueFull,
    ServingError,
    Unavailable,
)


class MeasuredSink:
    """A request's sink, measured. Made when the request comes in."""

    def __init__(
        self,
        request: GenerateRequest,
        sink: GenerateSink,
        statistics: GenerateStatistics,
        now: Callable[[], float] = time.monotonic,
        adapter: str = "",
    ) -> None:
        """`adapter`: its name; empty: the request is of the base."""
        self._adapter = adapter
        if adapter:
            statistics.waiting_adapters[adapter] += 1
        self._request = request
        self._sink = sink
        self._statistics = statistics
        self._now = now
        self._started_s = now()
        self._first_s = 0.0
        self._last_s = 0.0
        self._queue_s = 0.0
        self._num_tokens = 0
        self._num_cached = 0
        statistics.num_requests += 1

    def chunk(self, chunk: Chunk) -> None:
        """The next piece."""
        now_s = self._now()
        statistics = self._statistics
        if self._first_s:
            statistics.between_tokens_s.observe(now_s - self._last_s)
        else:
            self._note_first(chunk, now_s)
        self._last_s = now_s
        self._num_tokens += len(chunk.token_ids)
        statistics.num_generated_tokens += len(chunk.token_ids)
        if self._request.on_tokens is not None:
            self._request.on_tokens(len(chunk.token_ids))
        if chunk.finish is not None:
            self._note_end(chunk.finish.reason)
            statistics.preemptions.observe(chunk.num_preemptions)
            self._leave_adapter()
        self._sink.chunk(chunk)

    def fail(self, error: ServingError) -> None:
        """Ends the request with an error."""
        self._note_failure(error)
        self._leave_adapter()
        self._sink.fail(error)

    def _leave_adapter(self) -> None:
        if self._adapter:
            statistics = self._statistics
            _take(
                statistics.running_adapters if self._first_s else statistics.waiting_adapters,
                self._adapter,
            )

    def _note_first(self, chunk: Chunk, now_s: float) -> None:
        statistics = self._statistics
        self._first_s = now_s
        if self._adapter:
            _take(statistics.waiting_adapters, self._adapter)
            statistics.running_adapters[self._adapter] += 1
        self._queue_s = chunk.queue_s
        statistics.first_token_s.observe(now_s - self._started_s)
        statistics.queue_s.observe(chunk.queue_s)
        statistics.prefill_s.observe(max(now_s - self._started_s - chunk.queue_s, 0.0))
        statistics.num_prompt_tokens += len(self._request.prompt_ids)
        if self._request.on_tokens is not None:
            self._request.on_tokens(len(self._request.prompt_ids))
        statistics.num_cached_tokens += chunk.num_cached
        self._num_cached = chunk.num_cached

    def _note_end(self, reason: str) -> None:
        statistics = self._statistics
        request_s = self._last_s - self._started_s
        decode_s = self._last_s - self._first_s
        statistics.finished[reason] += 1
        statistics.request_s.observe(request_s)
        statistics.decode_s.observe(decode_s)
        statistics.inference_s.observe(max(request_s - self._queue_s, 0.0))
        if self._num_tokens > 1:
            statistics.per_token_s.observe(decode_s / (self._num_tokens - 1))
        statistics.prepare_s.observe(self._request.prepared_s)
        num_prompt = len(self._request.prompt_ids)
        statistics.prompt_tokens.observe(num_prompt)
        statistics.computed_tokens.observe(num_prompt - self._num_cached)
        statistics.generated_tokens.observe(self._num_tokens)
        max_tokens = self._request.sampling.max_tokens
        if max_tokens is not None:
            statistics.max_tokens.observe(max_tokens)
        choices = self._request.choices
        if choices.end(self._num_tokens):
            statistics.choices.observe(choices.count)
            statistics.longest_tokens.observe(choices.most_tokens)

    def _note_failure(self, error: ServingError) -> None:
        statistics = self._statistics
        if isinstance(error, InvalidRequest):
            statistics.failed["validation"] += 1
        elif isinstance(error, QueueFull):
            statistics.rejected["queue_full"] += 1
            statistics.failed["overloaded"] += 1
        elif isinstance(error, Cancelled | DeadlineExceeded):
            statistics.finished["abort"] += 1
        elif isinstance(error, Unavailable) and not self._first_s:
            statistics.rejected["not_ready"] += 1
        else:
            statistics.finished["error"] += 1
            statistics.failed["generation"] += 1


def _take(counts: Counter[str], name: str) -> None:
    """One less; none leaves no entry."""
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
