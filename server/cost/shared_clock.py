"""The time of an engine, shared out evenly among the requests that it has at each moment.

Its hand goes on by 1/n of the time while there are n requests. What a request has of the engine is
how far the hand went between its begin and its end, so that a change costs the same however many
there are, and all parts together are the time in which there was any.
"""

from collections.abc import Callable


class SharedClock:
    """Of one engine. Owned by the event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._hand_s = 0.0
        self._moved_at_s = 0.0
        self._num_requests = 0

    def begin(self) -> float:
        """A request comes; what it gets is to be handed back to `end`."""
        self._move()
        self._num_requests += 1
        return self._hand_s

    def end(self, begun_s: float) -> float:
        """It goes: how much of the time was its."""
        self._move()
        self._num_requests -= 1
        return self._hand_s - begun_s

    def _move(self) -> None:
        now_s = self._clock()
        if self._num_requests:
            self._hand_s += (now_s - self._moved_at_s) / self._num_requests
        self._moved_at_s = now_s
