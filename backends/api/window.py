"""How many responses of one request may be on their way: who sends one more waits."""

import threading
from collections.abc import Callable

PATIENCE_S = 10.0
SOFT_PATIENCE_S = 0.5


class Window:
    """Whoever takes responses makes one, for a request to a decoupled model, and gives room as it
    deals with them. Any thread may call, but an event loop should never `take`.

    Whoever takes the responses might be waiting for who makes them, directly or through others,
    which nobody can see. So who has waited for its patience in vain may send some more, each time
    by `size` more than the last time, until room is given again.
    """

    __slots__ = (
        "_changed", "_is_open", "_most", "_num_out", "_pass_on", "_step", "is_soft", "size",
    )  # fmt: skip

    def __init__(self, size: int, *, is_soft: bool = False) -> None:
        """Soft: patience is short, for user code takes the responses and may wait for anything."""
        self.size = size
        self.is_soft = is_soft
        self._num_out = 0
        self._most = size
        self._step = 0
        self._is_open = False
        self._changed = threading.Condition()
        self._pass_on: Callable[[bool], None] | None = None

    def take(self) -> None:
        """Before a response is sent: waits for room. At once where that is waited for elsewhere."""
        patience_s = SOFT_PATIENCE_S if self.is_soft else PATIENCE_S
        with self._changed:
            if self._pass_on is None:
                while not self._changed.wait_for(self._has_room, patience_s):
                    self._step += self.size
                    self._most += self._step
                self._num_out += 1

    def give(self, num_responses: int = 1) -> None:
        """So many responses have been dealt with."""
        with self._changed:
            self._num_out = max(0, self._num_out - num_responses)
            self._most, self._step = self.size, 0
            self._changed.notify(num_responses)
        if self._pass_on is not None:
            for _ in range(num_responses):
                self._pass_on(False)

    def open(self) -> None:
        """Nobody takes responses any more: nobody shall wait."""
        with self._changed:
            was_open, self._is_open = self._is_open, True
            self._changed.notify_all()
        if self._pass_on is not None and not was_open:
            self._pass_on(True)

    def pass_on(self, callback: Callable[[bool], None]) -> None:
        """Responses are sent elsewhere, and waited there: the callback hears of each `give` (False)
        and of `open` (True)."""
        with self._changed:
            self._pass_on = callback
            is_open = self._is_open
        if is_open:
            callback(True)

    def _has_room(self) -> bool:
        return self._is_open or self._num_out < self._most
