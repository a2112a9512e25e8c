"""Wakes an executor when one of its waiting requests has waited too long. Owned by the loop."""

import asyncio
import time
from collections.abc import Callable

from trivet.server.scheduling.alarm import Alarm
from trivet.server.scheduling.queue import due_ns
from trivet.server.scheduling.ticket import Ticket


class Expiry:
    """Of the requests of one queue."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sweep: Callable[[int], int]) -> None:
        """`sweep` is given the time, takes out what has waited too long by then, and says when the
        next request is due (0: none)."""
        self._sweep = sweep
        self._alarm = Alarm(loop, self._ring)

    def watch(self, ticket: Ticket) -> None:
        """A request waits, perhaps not for ever."""
        due = due_ns(ticket)
        if due:
            self._alarm.by(due)

    def cancel(self) -> None:
        """Nothing waits any more."""
        self._alarm.cancel()

    def _ring(self) -> None:
        next_ns = self._sweep(time.monotonic_ns())
        if next_ns:
            self._alarm.by(next_ns)
