"""Whether events are more frequent with one version than with another: a test that may be looked at
after every request, and as often as one likes.

It looks at events alone. If both versions are alike, an event of a window falls to the candidate by
the candidate's part of that window's requests, w. Against that stands, for each of a few ratios r,
that its events are r times as frequent: then it is w r / (1 - w + w r). The quotient of both, taken
over all events, is a martingale if nothing is wrong (and shrinks if the candidate is better): its
mean over the ratios is above 1/a ever at all with a chance of at most a (Ville 1939; Robbins,
"Statistical methods related to the law of the iterated logarithm", 1970; as a test of A against B,
Johari, Koomen, Pekelis and Walsh, "Always valid inference", Operations Research 2022).

Given the requests of a window, the events among the candidate's are hypergeometric and not
binomial, which has no larger means of convex functions (Hoeffding 1963): it stays below a
martingale, and w may be what really happened in the window. Rates that change with the hour harm
nothing, since both versions are compared in the same window.

So that a version that goes bad late is found as fast, the same begins anew every few seconds, and
what counts is the mean over all beginnings (Shin, Ramdas and Rinaldo, "E-detectors", 2022), of
which the first has half of the weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log

RATIOS = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
RESTART_S = 10.0


@dataclass(frozen=True, slots=True)
class Counted:
    """The requests of a window, and the events among them."""

    requests: int = 0
    events: int = 0

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(self.requests + other.requests, self.events + other.events)

    @property
    def rate(self) -> float:
        """Of events."""
        return self.events / self.requests if self.requests else 0.0


NONE = Counted()


class Evidence:
    """Against a candidate, in one respect."""

    __slots__ = ("_elapsed_s", "_logs", "_span_s", "_starts")

    def __init__(self, span_s: float, state: Sequence[float] = ()) -> None:
        """`span_s`: how long it is meant to be looked at: bad times later than that take longer to
        be found. `state`: what another one had come to."""
        self._span_s = max(span_s, RESTART_S)
        self._elapsed_s, self._starts, *logs = state or (0.0, 0, *[log(0.5)] * len(RATIOS))
        self._logs = [float(each) for each in logs]
        """For each ratio, the logarithm of the weighted mean over the beginnings."""

    @property
    def state(self) -> tuple[float, ...]:
        """To go on with it elsewhere."""
        return (self._elapsed_s, self._starts, *self._logs)

    @property
    def chance(self) -> float:
        """At most how likely so much of it is where nothing is wrong."""
        most = max(self._logs)
        mean = most + log(sum(exp(each - most) for each in self._logs) / len(RATIOS))
        return min(1.0, exp(-mean)) if mean < 700 else 0.0

    def passed(self, seconds: float) -> None:
        """So much time went by: it begins anew where that is due."""
        self._elapsed_s += seconds
        while self._elapsed_s >= (self._starts + 1) * RESTART_S:
            self._starts += 1
            # All weights together are at most a half, as the integral of (1 + x)^-2 is 1.
            parts = self._span_s / RESTART_S
            weight = 0.5 / parts / (1 + self._starts / parts) ** 2
            self._logs = [_log_sum(each, log(weight)) for each in self._logs]

    def compare(self, candidate: Counted, stable: Counted, tolerance: float = 0.0) -> None:
        """A window went by; the candidate's events may be `tolerance` more frequent."""
        events = candidate.events + stable.events
        if not events or not candidate.requests or not stable.requests:
            return
        meant = candidate.requests * (1.0 + tolerance)
        part = meant / (meant + stable.requests)
        self._logs = [
            each + candidate.events * log(ratio) - events * log(1.0 - part + part * ratio)
            for each, ratio in zip(self._logs, RATIOS, strict=True)
        ]

    def bound(self, counted: Counted, rate: float) -> None:
        """A window of one version alone, in which events are to be no more frequent than `rate`:
        the same quotient for a rate that is known."""
        others = counted.requests - counted.events
        for index, ratio in enumerate(RATIOS):
            raised = min(rate * ratio, (1.0 + rate) / 2)
            self._logs[index] += counted.events * log(raised / rate)
            self._logs[index] += others * log((1.0 - raised) / (1.0 - rate))


def _log_sum(first: float, second: float) -> float:
    most = max(first, second)
    return most if most == -inf else most + log(exp(first - most) + exp(second - most))
