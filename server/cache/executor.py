"""An executor before another one: what was answered before is answered again at once."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from trivet.backends.api import (
    Cause,
    CheckedRequest,
    Executor,
    InferResponse,
    ServingError,
    Sink,
    Unavailable,
    deaths_of,
    trouble_of,
)
from trivet.backends.api.request import ON_HOST
from trivet.backends.api.value import changed
from trivet.server.cache.entry import Cache, Entry
from trivet.server.cache.key import key_of
from trivet.server.scheduling.pool import STOPPING
from trivet.server.scheduling.statistics import ModelStatistics
from trivet.server.scheduling.ticket import labelled

LARGE_BYTES = 1024 * 1024
"""Inputs from this size on are hashed in a thread: it takes about a millisecond."""


@dataclass(slots=True, eq=False)
class _Lookup:
    """A request on its way through the cache."""

    request: CheckedRequest
    sink: Sink
    arrived_ns: int
    key: bytes = b""


class CachingExecutor:
    """Asks the cache before the model. Owned by the event loop; owns the model's executor."""

    def __init__(
        self,
        model: tuple[str, int],
        executor: Executor,
        cache: Cache,
        digest: Callable[[], bytes],
        statistics: ModelStatistics,
    ) -> None:
        """`digest` gives what a key holds of the model: it changes when answers may."""
        self._name, self._version = model
        self._executor = executor
        self._cache = cache
        self._digest = digest
        self._statistics = statistics
        self._loop = asyncio.get_running_loop()
        self._num_looking = 0
        self._none_looking = asyncio.Event()
        self._none_looking.set()
        self._is_stopping = False

    def submit(self, request: CheckedRequest, sink: Sink) -> None:
        """Answers from the cache, or has the request computed and keeps the answer."""
        if self._is_stopping:
            sink.fail(Unavailable(labelled(request, STOPPING)))
            return
        if request.residence:
            # What is kept is kept on the host.
            request = changed(request, residence=ON_HOST)
        lookup = _Lookup(request, sink, time.monotonic_ns())
        self._num_looking += 1
        self._none_looking.clear()
        tensors = request.inputs.values()
        is_here = all(tensor.is_on_host for tensor in tensors)
        if is_here and sum(tensor.nbytes for tensor in tensors) < LARGE_BYTES:
            self._look_up(lookup, key_of(self._digest(), request))
            return
        hashing = self._loop.run_in_executor(None, key_of, self._digest(), request)
        hashing.add_done_callback(lambda done: self._look_up(lookup, done.result()))

    def _look_up(self, lookup: _Lookup, key: bytes) -> None:
        lookup.key = key
        self._cache.find(key, partial(self._found, lookup))

    def _found(self, lookup: _Lookup, entry: Entry | None) -> None:
        self._num_looking -= 1
        if self._num_looking == 0:
            self._none_looking.set()
        elapsed_ns = time.monotonic_ns() - lookup.arrived_ns
        request = lookup.request
        if entry is None:
            self._statistics.cache_missed(elapsed_ns)
            sink = _KeepingSink(lookup.sink, partial(self._end_miss, lookup.key, elapsed_ns))
            self._executor.submit(request, sink)
            return
        self._statistics.cache_hit(elapsed_ns)
        response = InferResponse(self._name, self._version, request.id, list(entry.outputs))
        if entry.parameters:
            response.parameters = entry.parameters
        lookup.sink.send(response, final=True)

    def _end_miss(self, key: bytes, elapsed_ns: int, entry: Entry | None) -> None:
        stored_ns = 0
        if entry is not None:
            started_ns = time.monotonic_ns()
            self._cache.keep(key, entry)
            stored_ns = time.monotonic_ns() - started_ns
        self._statistics.cache_miss_ended(elapsed_ns, stored_ns)

    def is_ready(self) -> bool:
        """Whether the model is: what is not cached needs it."""
        return self._executor.is_ready()

    def trouble(self) -> str:
        """See Supervised."""
        return trouble_of([self._executor])

    def deaths(self) -> Mapping[Cause, int]:
        """See Supervised."""
        return deaths_of([self._executor])

    async def drain(self) -> None:
        """Takes no new request and returns when every submitted one has ended."""
        self._is_stopping = True
        await self._none_looking.wait()
        await self._executor.drain()

    async def close(self) -> None:
        """Ends what is left with an error and frees the instances. The cache is not its own."""
        self._is_stopping = True
        await self._executor.close()


class _KeepingSink:
    """Passes on what it gets, then tells what is to be kept: a whole answer, or nothing."""

    __slots__ = ("_end", "_num_sent", "_sink")

    def __init__(self, sink: Sink, end: Callable[[Entry | None], None]) -> None:
        self._sink = sink
        self._end = end
        self._num_sent = 0

    def send(self, response: InferResponse, *, final: bool) -> None:
        """One response; several are no answer that could be kept."""
        self._num_sent += 1
        self._sink.send(response, final=final)
        if final:
            is_whole = self._num_sent == 1
            self._end(Entry(response.outputs, response.parameters) if is_whole else None)

    def finish(self) -> None:
        """The end without a further response."""
        self._sink.finish()
        self._end(None)

    def fail(self, error: ServingError) -> None:
        """A failure is not kept."""
        self._sink.fail(error)
        self._end(None)
