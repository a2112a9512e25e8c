"""One timer of an event loop for many times to wake up at."""

import asyncio
import time
from collections.abc import Callable


class Alarm:
    """Calls when the earliest of the times that it was set to has come. Owned by the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop = loop
        self._call = call
        self._timer: asyncio.TimerHandle | None = None
        self._time_ns = 0

    @property
    def is_set(self) -> bool:
        """Whether it will call."""
        return self._timer is not None

    def by(self, time_ns: int) -> None:
        """Calls at this time (of the monotonic clock) at the latest; sooner if that was asked."""
        if self._timer is not None:
            if self._time_ns <= time_ns:
                return
            self._timer.cancel()
        self._time_ns = time_ns
        self._timer = self._loop.call_later(_delay_s(time_ns), self._ring)

    def at(self, time_ns: int) -> None:
        """Calls at this time, not when it was asked before."""
        self.cancel()
        self.by(time_ns)

    def cancel(self) -> None:
        """Does not call."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        self._call()


def _delay_s(time_ns: int) -> float:
    return max(0, time_ns - time.monotonic_ns()) / 1e9
