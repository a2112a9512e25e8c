"""Back-pressure for what user code reads of other models."""

from trivet.backends.api import Asker, RequestContext

MOST_AHEAD = 8
"""Responses that may be on their way to an iterator or wait in it."""


class Room:
    """What an iterator has read of its request's window. `read` is for one thread."""

    def __init__(self, asker: Asker, context: RequestContext) -> None:
        self._asker = asker
        self._context = context
        self._num_read = 0

    def read(self) -> None:
        """One more response. Room is given by the half window, since each time costs a message."""
        self._num_read += 1
        if self._num_read >= MOST_AHEAD // 2:
            self._asker.give_room(self._context, self._num_read)
            self._num_read = 0

    def skip(self) -> None:
        """A response that is not shown to user code. From any thread."""
        self._asker.give_room(self._context, 1)
