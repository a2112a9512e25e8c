"""Which requests are traced: one of so many, up to so many. Owned by the event loop."""

from dataclasses import replace

from trivet.server.tracing.context import TraceContext
from trivet.server.tracing.setting import TraceSetting


class Sampler:
    """Counts the requests that one setting is for."""

    __slots__ = ("_count", "_num_seen", "_setting")

    def __init__(self, setting: TraceSetting) -> None:
        self._setting = setting
        self._count = setting.count
        self._num_seen = 0

    @property
    def setting(self) -> TraceSetting:
        """As it is now: `count` goes down."""
        return replace(self._setting, count=self._count)

    @property
    def is_active(self) -> bool:
        """Whether any request may still be traced."""
        return self._setting.is_active and self._count != 0

    def takes(self, caller: TraceContext | None) -> bool:
        """Whether to trace the next request. A caller that traces its part decides, and its
        requests do not count; so does one that says that it does not."""
        if not self.is_active:
            return False
        if caller is not None:
            return caller.is_sampled
        self._num_seen += 1
        if self._num_seen % self._setting.rate:
            return False
        if self._count > 0:
            self._count -= 1
        return True
