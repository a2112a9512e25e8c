"""What a roll-out watches: each guard turns requests into events that should not be more frequent
with the candidate than with the stable version.

That an answer failed is such an event. That it took longer than the 99th percentile of the stable
version is one, too: so one test serves for rates, quantiles and outcomes (`evidence.py`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from trivet.backends.api import InvalidConfig
from trivet.server.models.texts import did_you_mean

ERROR, LATENCY, FIRST_TOKEN, LENGTH, REFUSAL, COST = (
    "error",
    "latency",
    "first_token",
    "length",
    "refusal",
    "cost",
)
"""Series of values, one of each request that has it. Times are in seconds."""
OUTCOME = "outcome:"
"""And a name: numbers that clients report afterwards."""
DIFFERENCE = "difference"
"""Whether a shadow's answer differs from that of the version that was asked."""
GENERATED = (FIRST_TOKEN, LENGTH, REFUSAL)
"""Series that only models which generate text have."""
_QUANTILE = re.compile(r"(?:(?P<series>first_token|length|cost)_)?p(?P<digits>[1-9]\d{0,3})")
_RATES = {"errors": ERROR, "refusals": REFUSAL}
_DIFFERENCES = "differences"
_OUTCOME = re.compile(r"outcome:[A-Za-z][A-Za-z0-9._-]{0,62}")
_MOST_TOLERANCE = 100.0


class Kind(Enum):
    """Which values are events."""

    RATE = "rate"
    """Those that are not zero."""
    QUANTILE = "quantile"
    """Those above a quantile of the stable version's."""
    OUTCOME = "outcome"
    """Those below the stable version's mean: the higher, the better."""
    BOUND = "bound"
    """Those that are not zero, of the candidate alone: `tolerance` is how frequent they may be."""


@dataclass(frozen=True, slots=True)
class Guard:
    """One of them."""

    name: str
    kind: Kind
    series: str
    quantile: float = 0.0
    tolerance: float = 0.0
    """By how much the candidate may be worse, as a part: of events, or of the quantile."""

    @property
    def event_tolerance(self) -> float:
        """By how much its events may be more frequent."""
        return self.tolerance if self.kind in (Kind.RATE, Kind.OUTCOME) else 0.0

    @property
    def stretch(self) -> float:
        """By what the candidate's values are divided."""
        return 1.0 + self.tolerance if self.kind is Kind.QUANTILE else 1.0


def guard_of(name: str, tolerance: object) -> Guard:
    """The guard that a policy names so. Raises InvalidConfig."""
    number = _tolerance(name, tolerance)
    if name in _RATES:
        return Guard(name, Kind.RATE, _RATES[name], tolerance=number)
    if name == _DIFFERENCES:
        return _bound(name, number)
    if _OUTCOME.fullmatch(name):
        return Guard(name, Kind.OUTCOME, name, tolerance=number)
    if found := _QUANTILE.fullmatch(name):
        # p5 is the 5th percentile, p999 the 99.9th.
        digits = found["digits"]
        quantile = int(digits) / 10 ** max(2, len(digits))
        return Guard(name, Kind.QUANTILE, found["series"] or LATENCY, quantile, number)
    known = (*_RATES, _DIFFERENCES, "p50", "p99", "first_token_p99", "length_p50", "cost_p50")
    raise InvalidConfig(
        f"guard '{name[:64]}' is not known; there are {', '.join(known)} (any percentile) and "
        f"outcome:NAME{did_you_mean(name, known)}"
    )


def guards_of(table: Mapping[str, Any]) -> tuple[Guard, ...]:
    """All of a policy's. Raises InvalidConfig."""
    return tuple(guard_of(name, tolerance) for name, tolerance in table.items())


def _bound(name: str, tolerance: float) -> Guard:
    if not 0.0 < tolerance < 1.0:
        raise InvalidConfig(
            f"guard '{name}' is the part of a shadow's answers that may differ: above 0 and below "
            f"1, got {tolerance:g}"
        )
    return Guard(name, Kind.BOUND, DIFFERENCE, tolerance=tolerance)


def _tolerance(name: str, given: object) -> float:
    if isinstance(given, int | float) and not isinstance(given, bool):
        number = float(given)
        if 0.0 <= number <= _MOST_TOLERANCE:
            return number
    raise InvalidConfig(
        f"guard '{name[:64]}' is to be a number from 0 to {_MOST_TOLERANCE:g}, the part by which "
        f"the candidate may be worse (0.1: a tenth), got {repr(given)[:64]}"
    )
