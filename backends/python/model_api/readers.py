"""Back-pressure for what user code reads of other models, and the names by which the server knows
who would wait for ever: see `Window.readers` and `InferRequest.waiting`.

A thread that waits for an answer reads nothing else meanwhile. Nor, as far as anybody can tell,
does what computes the same batch beside it; and threads that user code has started may be waited
for by any other one of the model.
"""

import os
import threading
from typing import TYPE_CHECKING

from trivet.backends.api import Asker, InferRequest, Window

if TYPE_CHECKING:
    from trivet.backends.python.model_api.nested import Calling

MOST_AHEAD = 8
"""Responses that may be on their way to an iterator or wait in it."""


class Room:
    """What an iterator has read of its request's window. `read` is for one thread."""

    def __init__(self, asker: Asker, request: InferRequest) -> None:
        self._asker = asker
        self._request = request
        self._num_read = 0

    def read(self) -> None:
        """One more response. Room is given by the half window, since each time costs a message."""
        self._num_read += 1
        if self._num_read >= MOST_AHEAD // 2:
            self._asker.give_room(self._request, self._num_read)
            self._num_read = 0

    def skip(self) -> None:
        """A response that is not shown to user code. From any thread."""
        self._asker.give_room(self._request, 1)


def name_asker(
    request: InferRequest, calling: "Calling", *, is_stream: bool, is_async: bool
) -> None:
    """Says in a new request who waits for it. `is_async`: other coroutines of the thread go on."""
    batch, model, thread = _names(calling)
    names = {batch} if is_async else {batch, thread}
    if not calling.parents:
        names.add(model)
    request.waiting |= names
    if is_stream:
        request.window = Window(MOST_AHEAD, frozenset((batch, model, thread)))


def _names(calling: "Calling") -> tuple[str, str, str]:
    process = os.getpid()
    batch = f"{process}.batch{id(calling)}"
    return batch, f"{process}.{calling.model_name}", f"{process}.thread{threading.get_ident()}"
