"""How much of what costs us and moves nothing a client may send."""

import time

from trivet.server.grpc.http2.frames import ConnectionFault, ErrorCode

MAX_IDLE_FRAMES = 1000
"""Frames in a row that move no call on: pings, settings, window updates, empty DATA."""
IDLE_PER_S = 10
"""So many of them are forgiven each second: keepalive in a quiet stream is no flood."""
MAX_CANCELS = 10_000
"""Calls that a client may cancel in a row; each call that ends otherwise gives one back."""


class FloodGuard:
    """Counts for one connection."""

    __slots__ = ("_idle_s", "_num_cancels", "_num_idle", "num_moved")

    def __init__(self) -> None:
        self._num_idle = 0.0
        self._idle_s = time.monotonic()
        self._num_cancels = 0
        self.num_moved = 0
        """How often a call has moved on."""

    def moved(self) -> None:
        """A call has moved on."""
        self._num_idle = 0
        self.num_moved += 1

    def idle(self) -> None:
        """A frame that moves no call on. Raises ConnectionFault for one too many."""
        now_s = time.monotonic()
        self._num_idle = max(self._num_idle - (now_s - self._idle_s) * IDLE_PER_S, 0.0) + 1
        self._idle_s = now_s
        if self._num_idle > MAX_IDLE_FRAMES:
            text = f"more than {MAX_IDLE_FRAMES} frames in a row that move no call on"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, text)

    def ended(self) -> None:
        """A call has had its answer."""
        self._num_cancels = max(self._num_cancels - 1, 0)

    def cancelled(self) -> None:
        """The client has cancelled a call. Raises ConnectionFault for one too many."""
        self._num_cancels += 1
        if self._num_cancels > MAX_CANCELS:
            text = f"more than {MAX_CANCELS} calls cancelled, for few that were answered"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, text)
