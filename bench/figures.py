"""Medians over alternating rounds, and the rows of the final table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.against.comparison import verdict
from bench.against.interval import Interval, ratio_interval

Figures = dict[str, float]
Measure = Callable[[], Figures]


@dataclass(frozen=True, slots=True)
class Row:
    """One cell of the table: what was measured next to what, and the bar it has to pass."""

    cell: str
    unit: str
    ours: float
    bare: float
    bar: float | None
    """Least ratio ours / bare; with `is_difference` the most that ours may be above bare; None:
    no bar."""
    is_difference: bool = False
    note: str = ""
    interval: Interval | None = None
    """Where the ratio lies, from all rounds: then the verdict is OK, MISS or UNSURE."""

    @property
    def result(self) -> float:
        return self.ours - self.bare if self.is_difference else self.ours / self.bare

    @property
    def verdict(self) -> str:
        if self.bar is None:
            return ""
        if self.interval is not None:
            return verdict(self.interval, self.bar)
        is_pass = self.result <= self.bar if self.is_difference else self.result >= self.bar
        return "pass" if is_pass else "MISS"


def alternate(sides: Mapping[str, Measure], rounds: int) -> dict[str, Figures]:
    """Measures the sides in turn, A/B/A/B, so that slow drifts of the machine meet both; returns
    the medians."""
    return {name: _median(each) for name, each in in_turn(sides, rounds).items()}


def in_turn(sides: Mapping[str, Measure], rounds: int) -> dict[str, list[Figures]]:
    """The same, round by round."""
    seen: dict[str, list[Figures]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            seen[name].append(measure())
    return seen


def ratio_row(
    cell: str,
    unit: str,
    seen: Mapping[str, Sequence[Figures]],
    bar: float | None,
    *,
    by: float = 1.0,
    note: str = "",
) -> Row:
    """Rates of "ours" next to those of "bare", round by round; `by`: how much more work one of ours
    is."""
    ours, bare = ([each["rate_per_s"] for each in seen[side]] for side in ("ours", "bare"))
    ours = [each * by for each in ours]
    interval = ratio_interval([1 / each for each in bare], [1 / each for each in ours])
    between = f"{interval.low:.2f} to {interval.high:.2f}"
    told = f"{between}; {note}" if note else between
    return Row(cell, unit, median(ours), median(bare), bar, note=told, interval=interval)


def _median(figures: list[Figures]) -> Figures:
    return {key: median(each[key] for each in figures) for key in figures[0]}


def better(*figures: Figures) -> Figures:
    """The one with the higher rate."""
    return max(figures, key=lambda each: each["rate_per_s"])


def describe(name: str, figures: Figures) -> str:
    """One line of all that a load client saw."""
    return (
        f"  {name:<14} {figures['rate_per_s']:>9,.0f}/s  p50 {figures['p50_us']:>8,.0f} us  "
        f"p99 {figures['p99_us']:>8,.0f} us  server CPU {figures['server_cpu_us']:>7,.0f} us  "
        f"client busy {figures['client_busy']:.0%}"
    )
