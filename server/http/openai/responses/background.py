"""Responses that nobody waits for: each has a task, and events for whoever looks on."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from trivet.backends.api import BackendFailed, Cancelled, Chunk, ServingError
from trivet.server.http.generation import Outputs
from trivet.server.http.openai.responses.chat_form import renamed
from trivet.server.http.openai.responses.telling import Telling

ENDS_EARLY_S = 1.0
"""So long before a server's time is up those end that somebody still reads."""


_PIECE_BYTES, _SCORE_BYTES = 64, 512
"""What a piece of text takes besides its characters; what a token's log probability takes."""


class Background:
    """One of them. Owned by the event loop; it ends once."""

    def __init__(self, telling: Telling, outputs: Outputs) -> None:
        self.num_readers = 0
        self._telling: Telling | None = telling
        self._outputs = outputs
        self._events: list[bytes] = []
        self._first = 0
        """The number of the first event that is there."""
        self._num_lost = 0
        """Events that are kept for those alone who read them now."""
        self._event_bytes = 0
        self._head_bytes = len(orjson.dumps(telling.document()))
        self._output_bytes = 0
        """About what its output takes while it is written."""
        self._grown: Callable[[], None] = lambda: None
        self._waiting: set[asyncio.Future[None]] = set()
        self._note(telling.begin())
        self._task = asyncio.create_task(self._run())

    @property
    def has_events(self) -> bool:
        """Whether it was made to be streamed."""
        return bool(self._event_bytes)

    @property
    def num_bytes(self) -> int:
        """What it takes, about: its events, and until `release` what its document is made of."""
        told = 0 if self._telling is None else self._head_bytes + self._output_bytes
        return self._event_bytes + told

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._telling is None or self._telling.is_over

    def document(self) -> dict[str, Any]:
        """The response as it is now; until `release`."""
        assert self._telling is not None
        return self._telling.document()

    def release(self) -> None:
        """It has ended and its document is elsewhere: only its events are kept."""
        self._telling = None

    def cancel(self) -> None:
        """Ends it as cancelled, unless it has ended."""
        if self._telling is not None:
            self._note(self._telling.cancel())
            self._outputs.fail(Cancelled("the response was cancelled"))

    def fail(self, error: ServingError) -> None:
        """Ends it with an error, unless it has ended."""
        if self._telling is not None:
            self._note(self._telling.fail(renamed(error)))
            self._outputs.fail(error)

    def when_grown(self, call: Callable[[], None]) -> None:
        """Calls back whenever it has become larger and goes on."""
        self._grown = call

    def outgrow(self, error: ServingError) -> None:
        """Ends it with an error: there is no room for what it writes, which is given up with all
        events so far, once those who read them have."""
        if self._telling is None:
            return
        self._telling.forget()
        self._output_bytes = self._event_bytes = 0
        self._num_lost = len(self._events)
        self.fail(error)
        self._lose()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Somebody reads its events meanwhile."""
        self.num_readers += 1
        try:
            yield
        finally:
            self.num_readers -= 1
            self._lose()

    def _lose(self) -> None:
        if not self.num_readers:
            del self._events[: self._num_lost]
            self._first += self._num_lost
            self._num_lost = 0

    def when_done(self, call: Callable[[], None]) -> None:
        """Calls back once its end is noted and nothing of it runs any more."""
        self._task.add_done_callback(lambda _: call())

    async def after(self, number: int, wait_s: float) -> tuple[list[bytes], int]:
        """The events behind the one of that number, and the number of the last of them. Waits for
        the first, for so long; none where it has ended: there are no more."""
        if number + 1 >= self._first + len(self._events) and not self.is_over:
            changed = asyncio.get_running_loop().create_future()
            self._waiting.add(changed)
            try:
                await asyncio.wait((changed,), timeout=wait_s)
            finally:
                self._waiting.discard(changed)
        found = self._events[max(number + 1 - self._first, 0) :]
        return found, self._first + len(self._events) - 1 if found else number

    async def done(self) -> None:
        """Returns when nothing of it runs any more."""
        await asyncio.wait((self._task,))

    async def _run(self) -> None:
        try:
            while chunks := await self._outputs.next():
                if self._telling is None or self._telling.is_over:
                    break
                self._output_bytes += sum(_size_of(chunk) for _, chunk in chunks)
                self._note(self._telling.take(chunks))
                if not self.is_over:
                    self._grown()
        except ServingError as error:
            self.fail(error)
        finally:
            # It has ended by now, but for a fault of ours.
            self.fail(BackendFailed("internal error; the server log has the details"))

    def _note(self, events: list[bytes]) -> None:
        self._events += events
        self._event_bytes += sum(map(len, events))
        for changed in self._waiting:
            if not changed.done():
                changed.set_result(None)


def _size_of(chunk: Chunk) -> int:
    scores = sum(1 + len(scored.top) for scored in chunk.logprobs)
    return _PIECE_BYTES + len(chunk.text) + _SCORE_BYTES * scores


class Backgrounds:
    """Those that run. Owned by the event loop."""

    def __init__(self) -> None:
        self._running: set[Background] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, background: Background) -> None:
        """One more, until it ends."""
        self._running.add(background)
        background.when_done(lambda: self._running.discard(background))

    def leave(self, timeout_s: float) -> None:
        """The server takes no more requests: what nobody reads by now nobody can fetch any more, so
        that it ends; what is read goes on until the time is nearly up."""
        for background in list(self._running):
            if not background.num_readers:
                background.fail(_stopping())
        late_s = max(0.0, timeout_s - ENDS_EARLY_S)
        self._timer = asyncio.get_running_loop().call_later(late_s, self._fail_all)

    async def close(self) -> None:
        """Ends all."""
        if self._timer is not None:
            self._timer.cancel()
        running = list(self._running)
        self._fail_all()
        for background in running:
            await background.done()

    def _fail_all(self) -> None:
        for background in list(self._running):
            background.fail(_stopping())


def _stopping() -> ServingError:
    return Cancelled("the server is shutting down: ask again later, or another server")
