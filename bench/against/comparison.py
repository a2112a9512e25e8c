"""One cell of the comparison: costs of both commits round by round, the bar, the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from statistics import median

from bench.against.interval import MIN_ROUNDS, Interval, ratio_interval

DEFAULT_BAR = 0.97
"""Least ratio old cost / new cost: less than this is slower."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one round of one commit took."""

    cpu_us: float
    """CPU time a request (or step) of the server and its children."""
    rate_per_s: float
    """Requests or steps a second of wall-clock time."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A cell after all rounds. The n-th old cost was measured beside the n-th new one."""

    cell: str
    old: Sequence[Cost]
    new: Sequence[Cost]
    bar: float = DEFAULT_BAR

    @property
    def cpu(self) -> Interval:
        """Old CPU time / new CPU time: what is judged."""
        return ratio_interval([cost.cpu_us for cost in self.old], [c.cpu_us for c in self.new])

    @property
    def wall(self) -> Interval:
        """Old wall-clock time / new wall-clock time: shown only, as other programs change it."""
        return ratio_interval(
            [1 / cost.rate_per_s for cost in self.old], [1 / c.rate_per_s for c in self.new]
        )

    @property
    def verdict(self) -> str:
        """MISS only where the whole interval lies below the bar; too few rounds say nothing."""
        return verdict(self.cpu, self.bar) if len(self.old) >= MIN_ROUNDS else "UNSURE"

    def medians(self) -> dict[str, float]:
        """Of each figure over the rounds."""
        return {
            "old_cpu_us": median(cost.cpu_us for cost in self.old),
            "new_cpu_us": median(cost.cpu_us for cost in self.new),
            "old_rate_per_s": median(cost.rate_per_s for cost in self.old),
            "new_rate_per_s": median(cost.rate_per_s for cost in self.new),
        }


def verdict(interval: Interval, bar: float) -> str:
    """OK: the interval is at or above the bar; MISS: below it; UNSURE: the bar is inside."""
    if interval.low >= bar:
        return "OK"
    return "MISS" if interval.high < bar else "UNSURE"


def parse_bar(text: str) -> tuple[str, float]:
    """A pattern of cells and their bar, of "CELL=RATIO". Raises ValueError."""
    cell, _, ratio = text.rpartition("=")
    if not cell:
        raise ValueError(f"{text!r} is no CELL=RATIO, such as infer/grpc/1=1.1")
    return cell, float(ratio)


def bar_of(cell: str, bars: Mapping[str, float]) -> float:
    """The last given of the patterns that fit the cell, or the default."""
    fitting = [bar for pattern, bar in bars.items() if fnmatchcase(cell, pattern)]
    return fitting[-1] if fitting else DEFAULT_BAR
