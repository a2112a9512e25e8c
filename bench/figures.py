"""Medians over alternating rounds, and the rows of the final table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

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

    @property
    def result(self) -> float:
        return self.ours - self.bare if self.is_difference else self.ours / self.bare

    @property
    def verdict(self) -> str:
        if self.bar is None:
            return ""
        is_pass = self.result <= self.bar if self.is_difference else self.result >= self.bar
        return "pass" if is_pass else "MISS"


def alternate(sides: Mapping[str, Measure], rounds: int) -> dict[str, Figures]:
    """Measures the sides in turn, A/B/A/B, so that slow drifts of the machine meet both; returns
    the medians."""
    seen: dict[str, list[Figures]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            seen[name].append(measure())
    return {name: _median(each) for name, each in seen.items()}


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
