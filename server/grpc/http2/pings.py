"""Which pings of one connection are sent, and how many of the client's are borne."""

from trivet.server.grpc.http2.frames import ConnectionFault, ErrorCode
from trivet.server.grpc.http2.options import Http2Options


class Pings:
    """Gets the time, whether there are calls, and a count that grows as calls move on."""

    __slots__ = ("_came_at", "_came_s", "_num_sent", "_num_strikes", "_options", "_sent_at")

    def __init__(self, options: Http2Options) -> None:
        self._options = options
        self._num_sent = 0
        self._sent_at = 0
        self._came_s = -options.min_ping_interval_s
        self._came_at = 0
        self._num_strikes = 0

    def may_send(self, num_moved: int, *, has_calls: bool) -> bool:
        """Whether another ping may be sent now, which counts it."""
        if num_moved != self._sent_at:
            self._num_sent, self._sent_at = 0, num_moved
        most = self._options.max_pings_without_data
        if (most and self._num_sent >= most) or not (has_calls or self._options.pings_idle):
            return False
        self._num_sent += 1
        return True

    def came(self, now_s: float, num_moved: int) -> None:
        """A ping of the client's. Raises ConnectionFault for one that came too soon too often."""
        options = self._options
        is_early = now_s - self._came_s < options.min_ping_interval_s
        if num_moved != self._came_at:
            self._num_strikes = 0
        elif is_early:
            self._num_strikes += 1
        self._came_s, self._came_at = now_s, num_moved
        if options.max_ping_strikes and self._num_strikes > options.max_ping_strikes:
            # The words that gRPC's clients look for, to ping less often from then on.
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")
