"""How many responses of one request may be on their way: who sends one more waits."""

import threading
from collections.abc import Callable

NOBODY: frozenset[str] = frozenset()


class Window:
    """Whoever takes responses makes one, for a request to a decoupled model, and gives room as it
    deals with them. Any thread may call, but an event loop should never `take`.
    """

    __slots__ = ("_changed", "_is_open", "_pass_on", "_room", "readers", "size")

    def __init__(self, size: int, readers: frozenset[str] = NOBODY) -> None:
        """`readers`: by what names a model that takes the responses is known where it waits for
        something else, see `InferRequest.waiting`; ensembles never do."""
        self.size = size
        self.readers = readers
        self._room = size
        self._is_open = False
        self._changed = threading.Condition()
        self._pass_on: Callable[[bool], None] | None = None

    def take(self) -> None:
        """Before a response is sent: waits for room. At once where that is waited for elsewhere."""
        with self._changed:
            if self._pass_on is None:
                self._changed.wait_for(lambda: self._room > 0 or self._is_open)
                self._room -= 1

    def give(self, num_responses: int = 1) -> None:
        """So many responses have been dealt with."""
        with self._changed:
            self._room = min(self._room + num_responses, self.size)
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
