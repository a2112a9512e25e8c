"""From the thread that hears of responses to the user code that waits for them."""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from trivet.backends.python.model_api.response import InferenceResponse

if TYPE_CHECKING:
    import asyncio


class Inbox:
    """Responses in their order; None is the end. Any thread may put, one at a time takes: a thread
    by `get`, a coroutine, whose event loop goes on meanwhile, by `wait`."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._responses: deque[InferenceResponse | None] = deque()
        self._wake: Callable[[], None] | None = None
        """Of the coroutine that waits."""

    def put(self, response: InferenceResponse | None) -> None:
        with self._arrived:
            self._responses.append(response)
            self._arrived.notify()
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def get(self) -> InferenceResponse | None:
        """The next one, when it has come."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._responses)
            return self._responses.popleft()

    async def wait(self) -> InferenceResponse | None:
        """The same for coroutines."""
        import asyncio  # whoever is in a coroutine has it; the others need not

        loop = asyncio.get_running_loop()
        while True:
            with self._arrived:
                if self._responses:
                    return self._responses.popleft()
                waiter = loop.create_future()
                self._wake = partial(_wake, loop, waiter)
            await waiter


def _wake(loop: "asyncio.AbstractEventLoop", waiter: "asyncio.Future[None]") -> None:
    # A loop that is closed has nobody left who waits.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_settle, waiter)


def _settle(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
