"""Which requests of a prompt are under way, and what has come of them. Owned by the event loop."""

import asyncio
import time

from trivet.backends.api import Chunk, GenerateRequest, GenerateSink, Observer, ServingError


class Counting:
    """Counts requests for whoever observes the version, and knows when none is left."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._open: set[_Counted] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def sink(self, request: GenerateRequest, sink: GenerateSink) -> GenerateSink:
        """The sink, which is counted until its end."""
        counted = _Counted(request, sink, self)
        self._open.add(counted)
        self._is_empty.clear()
        return counted

    async def wait_until_empty(self) -> None:
        """Returns when every request has ended."""
        await self._is_empty.wait()

    def end_all(self, error: ServingError) -> None:
        """Ends what is left."""
        for counted in list(self._open):
            counted.request.cancel.cancel()
            counted.fail(error)

    def succeeded(self, counted: "_Counted") -> None:
        """A request was answered."""
        self._closed(counted)
        self._observer.succeeded(1, counted.elapsed_ns())

    def failed(self, counted: "_Counted", error: ServingError) -> None:
        """A request was not."""
        self._closed(counted)
        self._observer.failed(error, counted.elapsed_ns())

    def first_response(self, counted: "_Counted") -> None:
        """A request's first piece has come."""
        self._observer.first_response(counted.elapsed_ns())

    def _closed(self, counted: "_Counted") -> None:
        self._open.discard(counted)
        if not self._open:
            self._is_empty.set()


class _Counted:
    """A sink in front of a client's."""

    __slots__ = ("_begun_ns", "_counting", "_has_begun", "_is_over", "_sink", "request")

    def __init__(self, request: GenerateRequest, sink: GenerateSink, counting: Counting) -> None:
        self.request = request
        self._sink = sink
        self._counting = counting
        self._begun_ns = time.monotonic_ns()
        self._has_begun = False
        self._is_over = False

    def elapsed_ns(self) -> int:
        """Since the request came."""
        return time.monotonic_ns() - self._begun_ns

    def chunk(self, chunk: Chunk) -> None:
        """See GenerateSink."""
        if self._is_over:
            return
        if not self._has_begun:
            self._has_begun = True
            self._counting.first_response(self)
        if chunk.finish is not None:
            self._is_over = True
            self._counting.succeeded(self)
        self._sink.chunk(chunk)

    def fail(self, error: ServingError) -> None:
        """See GenerateSink."""
        if not self._is_over:
            self._is_over = True
            self._counting.failed(self, error)
            self._sink.fail(error)
