"""Whether an instance that has just finished a batch waits for the clients it has answered. Pure.

Clients that call in a loop come back a moment after their answers. If an instance starts at once
with the first one back, or with those that came while it was busy, 16 clients fall into batches of
1 and 15 in turn, or of 8 and 8, which cost more than 16 together. So after a batch that took long
an instance waits for those it has answered, for a small share of the time that the batch took. A
lone request is never held, and where clients do not come back in time the wait is given up for a
while.
"""

SHARE = 0.05
"""Of a batch's time: what a wait may cost at most. A batch of 16 gains more over 15 and 1."""
SHORTEST_NS = 500_000
"""Waits shorter than that are not worth a timer: batches under 10 ms go without."""
FIRST_PAUSE = 4
LONGEST_PAUSE = 256


class Rebound:
    """Of one executor. Owned by the event loop."""

    __slots__ = ("_max_batch_size", "_next_pause", "_num_paused", "_wanted", "until_ns")

    def __init__(self, max_batch_size: int) -> None:
        """A `max_batch_size` below 2: never waits."""
        self._max_batch_size = max_batch_size
        self.until_ns = 0
        """Until when it waits, at most; 0: it does not."""
        self._wanted = 0
        self._num_paused = 0
        self._next_pause = FIRST_PAUSE

    def finished(self, count: int, num_queued: int, compute_ns: int, now_ns: int) -> None:
        """A batch of `count` requests has been computed in this time; others wait already."""
        window_ns = int(compute_ns * SHARE)
        wanted = min(count + num_queued, self._max_batch_size)
        if window_ns < SHORTEST_NS or num_queued >= wanted or wanted < 2:
            return
        if self._num_paused:
            self._num_paused -= 1
            return
        self.until_ns, self._wanted = now_ns + window_ns, wanted

    def wait_until_ns(self, num_queued: int, now_ns: int) -> int:
        """Until when to start nothing while this many requests wait; 0: start."""
        if not self.until_ns:
            return 0
        if num_queued >= self._wanted:
            self.until_ns, self._next_pause = 0, FIRST_PAUSE
        elif now_ns >= self.until_ns:
            self.until_ns, self._num_paused = 0, self._next_pause
            self._next_pause = min(2 * self._next_pause, LONGEST_PAUSE)
        return self.until_ns
