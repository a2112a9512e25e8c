"""Whether a model's requests come one at a time, so that none has to wait for others. Pure.

Requests that were read in one turn of the event loop go together, so a batch is started at the end
of the turn. That costs another turn: for a client that waits for each answer before it asks again,
a tenth of what its request takes. Where requests have come alone for a while they are started at
once, and every now and then it is looked again whether they still do.
"""

FIRST_ALONE = 16
"""Batches of one, one after another, before the next request is not kept any more."""
LOOK_AGAIN = 64
"""Requests that are started at once before the next one is kept, to see who comes with it."""


class Company:
    """Of one executor. Owned by the event loop."""

    __slots__ = ("_num_alone", "_num_left")

    def __init__(self) -> None:
        self._num_alone = 0
        self._num_left = 0

    def is_expected(self) -> bool:
        """Whether a request that comes now is to wait for others. Asked once for each."""
        if not self._num_left:
            return True
        self._num_left -= 1
        return False

    def found(self, num_waiting: int) -> None:
        """So many requests were there when one was to be started that had waited for others."""
        if num_waiting > 1:
            self._num_alone = self._num_left = 0
            return
        self._num_alone = min(self._num_alone + 1, FIRST_ALONE)
        if self._num_alone == FIRST_ALONE:
            self._num_left = LOOK_AGAIN
