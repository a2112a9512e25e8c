"""Where answers of the core go that an HTTP handler waits for."""

import asyncio
from collections import deque

from trivet.backends.api import (
    Cancelled,
    CancelToken,
    InferResponse,
    InvalidRequest,
    ServingError,
)


class SingleSink:
    """Takes the one response that a request without streaming has room for."""

    __slots__ = ("_ended", "_error", "_num_responses", "_response", "_waiter")

    def __init__(self) -> None:
        self._ended = False
        self._error: ServingError | None = None
        self._num_responses = 0
        self._response: InferResponse | None = None
        self._waiter: asyncio.Future[None] | None = None

    def send(self, response: InferResponse, *, final: bool) -> None:
        if self._ended:
            return
        self._num_responses += 1
        self._response = response
        if final or self._num_responses > 1:
            self.finish()

    def finish(self) -> None:
        self._ended = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: ServingError) -> None:
        if not self._ended:
            self._error = error
            self.finish()

    async def result(self, cancel: CancelToken, wrong_count: str) -> InferResponse:
        """The response. Raises the request's error, and InvalidRequest with the text `wrong_count`
        when the model sent none or several. Cancels the request when the client goes away."""
        if not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                cancel.cancel()
                raise
        if self._error is not None:
            raise self._error
        if self._response is None or self._num_responses != 1:
            cancel.cancel()  # What else the model may have to say is for nobody.
            raise InvalidRequest(f"{wrong_count}, got {self._num_responses}")
        return self._response


class StreamSink:
    """A queue of responses for a client that reads them one by one.

    Beyond `max_pending` unread responses the request is cancelled: a client that does not read
    must not fill the memory.
    """

    __slots__ = ("_cancel", "_ended", "_error", "_max_pending", "_pending", "_waiter")

    def __init__(self, cancel: CancelToken, max_pending: int) -> None:
        self._cancel = cancel
        self._max_pending = max_pending
        self._pending: deque[InferResponse] = deque()
        self._ended = False
        self._error: ServingError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def send(self, response: InferResponse, *, final: bool) -> None:
        if self._ended:
            return
        if len(self._pending) >= self._max_pending:
            self.fail(
                Cancelled(
                    f"the client left {self._max_pending} responses unread; the request is "
                    "cancelled"
                )
            )
            self._cancel.cancel()
            return
        self._pending.append(response)
        self._ended = final
        self._wake()

    def finish(self) -> None:
        self._ended = True
        self._wake()

    def fail(self, error: ServingError) -> None:
        if not self._ended:
            self._error = error
            self.finish()

    @property
    def is_ended(self) -> bool:
        """Whether the last response or an error has come in, read or not."""
        return self._ended

    async def next(self) -> InferResponse | None:
        """The next response, None after the last one. Raises the request's error after the
        responses that came before it."""
        while not self._pending:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._pending.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
