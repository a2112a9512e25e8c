"""From the values of a window to events of the guards.

What is an event is decided by what was seen before the window: a quantile or a mean of the stable
version's values. So both versions are measured alike, whatever the values of the window are.
"""

from collections import deque
from collections.abc import Mapping, Sequence

from trivet.server.rollouts.evidence import NONE, Counted
from trivet.server.rollouts.guards import ERROR, Guard, Kind
from trivet.server.rollouts.machine import Window

RENEWED_S = 30.0
"""How long a quantile or mean counts: the load may be another by then."""
MOST_REMEMBERED = 10_000
LEAST = 30
Values = Mapping[str, Sequence[float]]
"""By series."""


class Look:
    """The events of one roll-out's guards."""

    __slots__ = ("_before", "_guards", "_limits", "_next_s")

    def __init__(self, guards: Sequence[Guard]) -> None:
        self._guards = guards
        needed = {guard.series for guard in guards if guard.kind in (Kind.QUANTILE, Kind.OUTCOME)}
        self._before = {each: deque[float](maxlen=MOST_REMEMBERED) for each in needed}
        """The stable version's last values."""
        self._limits: dict[str, float] = {}
        """By guard: above a quantile, below a mean a value is an event."""
        self._next_s = 0.0

    def window(self, candidate: Values, stable: Values, passed_s: float) -> Window:
        """What happened in so much time."""
        self._renew(passed_s)
        seen = {}
        for guard in self._guards:
            mine = self._counted(guard, candidate.get(guard.series, ()), guard.stretch)
            theirs = self._counted(guard, stable.get(guard.series, ()), 1.0)
            if guard.kind is Kind.BOUND:
                theirs = NONE
            seen[guard.name] = (mine, theirs)
        for series, values in self._before.items():
            values.extend(stable.get(series, ()))
        return Window(len(candidate.get(ERROR, ())), seen)

    def _renew(self, passed_s: float) -> None:
        self._next_s -= passed_s
        if self._next_s > 0:
            return
        for guard in self._guards:
            before = self._before.get(guard.series, ())
            # Of the furthest quantiles as many as are remembered have to do.
            enough = min(max(LEAST, 5 / (1 - guard.quantile)), MOST_REMEMBERED)
            if guard.kind is Kind.QUANTILE and len(before) >= enough:
                self._limits[guard.name] = sorted(before)[int(guard.quantile * len(before))]
            elif guard.kind is Kind.OUTCOME and len(before) >= LEAST:
                self._limits[guard.name] = sum(before) / len(before)
        if all(g.name in self._limits for g in self._guards if g.series in self._before):
            self._next_s = RENEWED_S

    def _counted(self, guard: Guard, values: Sequence[float], stretch: float) -> Counted:
        if guard.kind in (Kind.RATE, Kind.BOUND):
            return Counted(len(values), sum(value != 0.0 for value in values))
        limit = self._limits.get(guard.name)
        if limit is None:
            return NONE
        if guard.kind is Kind.OUTCOME:
            return Counted(len(values), sum(value < limit for value in values))
        limit *= stretch
        return Counted(len(values), sum(value > limit for value in values))
