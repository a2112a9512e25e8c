"""Where chunks of one or several outputs go that an HTTP handler waits for."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trivet.backends.api import (
    Cancelled,
    CancelToken,
    Chunk,
    GenerateRequest,
    Generator,
    ServingError,
)

MAX_PENDING = 16_384
"""Chunks that may wait for a client that does not read; one more cancels its request."""


@dataclass(slots=True)
class _OutputSink:
    outputs: "Outputs"
    index: int

    def chunk(self, chunk: Chunk) -> None:
        self.outputs.put(self.index, chunk)

    def fail(self, error: ServingError) -> None:
        self.outputs.fail(error)


class Outputs:
    """The outputs of one HTTP request, as they come. All end when one fails."""

    def __init__(self) -> None:
        self.cancel = CancelToken()
        self._pending: deque[tuple[int, Chunk]] = deque()
        self._error: ServingError | None = None
        self._num_open = 0
        self._waiter: asyncio.Future[None] | None = None
        self._num_put = 0
        self._begun_s = time.monotonic()

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self._num_open > 0 and self._error is None

    @property
    def error(self) -> ServingError | None:
        """Why they ended, if it was not the model's own end."""
        return self._error

    def start(self, generator: Generator, request: GenerateRequest) -> None:
        """One more output, with the next index."""
        request.cancel = self.cancel
        request.prepared_s = time.monotonic() - self._begun_s
        self._num_open += 1
        generator.generate(request, _OutputSink(self, self._num_open - 1))

    def put(self, index: int, chunk: Chunk) -> None:
        """The next piece of an output."""
        if self._error is not None:
            return
        self._pending.append((index, chunk))
        self._num_put += 1
        self._num_open -= chunk.finish is not None
        if len(self._pending) > MAX_PENDING:
            self.fail(Cancelled(f"the client left {MAX_PENDING} pieces of text unread"))
        self._wake()

    def fail(self, error: ServingError) -> None:
        """All outputs end with this error."""
        if self._error is None:
            self._error = error
            self.cancel.cancel()
            self._wake()

    async def next(self) -> list[tuple[int, Chunk]]:
        """What has come, with the outputs' indexes; empty at the end, and while they are open when
        nothing has come for as long as `nudged` says. Raises the error after what came before."""
        if not self._pending and self._error is None and self._num_open:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        found = list(self._pending)
        self._pending.clear()
        if not found and self._error is not None:
            raise self._error
        return found

    @contextmanager
    def nudged(self, after_s: float) -> Iterator[None]:
        """Lets `next` return, with nothing, when nothing has come for that long."""
        loop = asyncio.get_running_loop()
        seen = self._num_put
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal seen, timer
            if seen == self._num_put:
                self._wake()
            seen = self._num_put
            timer = loop.call_later(after_s, look)

        timer = loop.call_later(after_s, look)
        try:
            yield
        finally:
            timer.cancel()

    async def all(self) -> list[tuple[int, Chunk]]:
        """Everything. Cancels the outputs when the client goes away. Raises the error."""
        found: list[tuple[int, Chunk]] = []
        try:
            while chunks := await self.next():
                found += chunks
        finally:
            self.close()
        if self._error is not None:
            raise self._error
        return found

    def close(self) -> None:
        """Nobody waits any more."""
        if self._num_open:
            self.cancel.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
