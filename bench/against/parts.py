"""`--against`: which parts can be compared, in what order they run, and their table."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from rich.table import Table

from bench.against.checkout import CannotCompare, both_sides
from bench.against.comparison import Comparison
from bench.against.engine import EnginePart
from bench.against.interval import Interval
from bench.against.rounds import Part, run_rounds
from bench.against.served import ENSEMBLE, INFER, ServedPart
from bench.against.start import StartPart

SERVED = {"infer": INFER, "ensemble": ENSEMBLE}
OTHERS: dict[str, Callable[[float], Part]] = {"llm-step": EnginePart, "llm-start": StartPart}
"""By name; they are told how long a measurement takes."""
COMPARED = (*SERVED, *OTHERS)


def compare(
    commit: str, names: Iterable[str], seconds: float, rounds: int, bars: Mapping[str, float]
) -> list[Comparison]:
    """Measures the parts on both commits. Raises CannotCompare for what cannot be compared."""
    names = list(names)
    _check(names, bars)
    found: list[Comparison] = []
    with tempfile.TemporaryDirectory() as folder, both_sides(commit) as sides:
        for part in _parts(names, Path(folder), seconds):
            found += run_rounds(part, sides, rounds, bars)
    return found


def _check(names: Iterable[str], bars: Mapping[str, float]) -> None:
    strange = [name for name in names if name not in COMPARED]
    if strange:
        known = ", ".join(COMPARED)
        raise CannotCompare(f"{', '.join(strange)}: --against compares {known} only")
    cells = [cell.name for cells in SERVED.values() for cell in cells] + [*OTHERS]
    for pattern in bars:
        if not any(fnmatchcase(cell, pattern) for cell in cells):
            raise CannotCompare(f"--bar {pattern}: no such cell; there are {', '.join(cells)}")


def _parts(names: list[str], folder: Path, seconds: float) -> list[Part]:
    """What is served shares its servers."""
    served = [cell for name, cells in SERVED.items() if name in names for cell in cells]
    parts: list[Part] = [ServedPart(served, folder, seconds)] if served else []
    return [*parts, *(make(seconds) for name, make in OTHERS.items() if name in names)]


def table_of(comparisons: Iterable[Comparison]) -> Table:
    """Each cell with both costs, the ratio of CPU times and what it is judged by."""
    table = Table("cell")
    for title in ("old us", "new us", "old / new", "interval", "bar", "", "old 1/s", "new 1/s"):
        table.add_column(title, justify="right")
    table.add_column("wall-clock old / new")
    for each in comparisons:
        table.add_row(*_cells(each))
    return table


def _cells(each: Comparison) -> list[str]:
    figures, cpu = each.medians(), each.cpu
    return [
        each.cell,
        f"{figures['old_cpu_us']:,.1f}",
        f"{figures['new_cpu_us']:,.1f}",
        f"{cpu.middle:.3f}",
        _range(cpu),
        f">= {each.bar}",
        each.verdict,
        f"{figures['old_rate_per_s']:,.0f}",
        f"{figures['new_rate_per_s']:,.0f}",
        f"{each.wall.middle:.2f} ({_range(each.wall, 2)})",
    ]


def _range(interval: Interval, digits: int = 3) -> str:
    return f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"


def as_json(each: Comparison) -> dict[str, object]:
    """All figures of a cell, those of each round included."""
    rounds = [
        {"old_cpu_us": old.cpu_us, "new_cpu_us": new.cpu_us}
        for old, new in zip(each.old, each.new, strict=True)
    ]
    cpu = {"low": each.cpu.low, "ratio": each.cpu.middle, "high": each.cpu.high}
    verdict = {"bar": each.bar, "verdict": each.verdict}
    return {"cell": each.cell, **each.medians(), **cpu, **verdict, "rounds": rounds}
