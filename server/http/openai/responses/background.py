"""Responses that nobody waits for: each has a task, and events for whoever looks on."""

import asyncio
from collections.abc import Callable
from typing import Any

from trivet.backends.api import BackendFailed, Cancelled, ServingError
from trivet.server.http.generation import Outputs
from trivet.server.http.openai.responses.chat_form import renamed
from trivet.server.http.openai.responses.telling import Telling

ENDS_EARLY_S = 1.0
"""So long before a server's time is up those end that somebody still reads."""


class Background:
    """One of them. Owned by the event loop; it ends once."""

    def __init__(self, telling: Telling, outputs: Outputs) -> None:
        self.num_bytes = 0
        """Of its events."""
        self.num_readers = 0
        self._telling: Telling | None = telling
        self._outputs = outputs
        self._events: list[bytes] = []
        self._waiting: set[asyncio.Future[None]] = set()
        self._note(telling.begin())
        self._task = asyncio.create_task(self._run())

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

    def when_done(self, call: Callable[[], None]) -> None:
        """Calls back once its end is noted and nothing of it runs any more."""
        self._task.add_done_callback(lambda _: call())

    async def after(self, number: int, wait_s: float) -> list[bytes]:
        """The events behind the one of that number. Waits for the first of them, for so long; none
        where it has ended: there are no more."""
        if number + 1 >= len(self._events) and not self.is_over:
            changed = asyncio.get_running_loop().create_future()
            self._waiting.add(changed)
            try:
                await asyncio.wait((changed,), timeout=wait_s)
            finally:
                self._waiting.discard(changed)
        return self._events[number + 1 :]

    async def done(self) -> None:
        """Returns when nothing of it runs any more."""
        await asyncio.wait((self._task,))

    async def _run(self) -> None:
        try:
            while chunks := await self._outputs.next():
                if self._telling is None or self._telling.is_over:
                    break
                self._note(self._telling.take(chunks))
        except ServingError as error:
            self.fail(error)
        finally:
            # It has ended by now, but for a fault of ours.
            self.fail(BackendFailed("internal error; the server log has the details"))

    def _note(self, events: list[bytes]) -> None:
        self._events += events
        self.num_bytes += sum(map(len, events))
        for changed in self._waiting:
            if not changed.done():
                changed.set_result(None)


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
