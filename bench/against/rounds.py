"""Rounds of measurements, in each of which both commits are measured side by side."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from bench.against.checkout import Side
from bench.against.comparison import Comparison, Cost, bar_of

Cells = Mapping[str, Callable[[], Mapping[str, Cost]]]
"""How to measure, by cell; gives the costs by the name of the side."""


class Part(Protocol):
    """Cells that share their processes."""

    def open(self, sides: Iterable[Side]) -> AbstractContextManager[Cells]:
        """Both sides' processes for one round."""


def run_rounds(
    part: Part, sides: tuple[Side, Side], rounds: int, bars: Mapping[str, float]
) -> list[Comparison]:
    """Measures all cells of a part that many times; who begins, A or B, goes A B B A."""
    costs: dict[str, list[Mapping[str, Cost]]] = {}
    for index in range(rounds):
        with part.open(sides if index % 4 in (0, 3) else sides[::-1]) as cells:
            for cell, measure in cells.items():
                found = measure()
                costs.setdefault(cell, []).append(found)
                print(_line(index, cell, found), flush=True)
    old, new = (side.name for side in sides)
    return [
        Comparison(cell, [f[old] for f in seen], [f[new] for f in seen], bar_of(cell, bars))
        for cell, seen in costs.items()
    ]


def _line(index: int, cell: str, found: Mapping[str, Cost]) -> str:
    costs = "  ".join(
        f"{side} {cost.cpu_us:,.1f} us {cost.rate_per_s:,.0f}/s"
        for side, cost in sorted(found.items(), reverse=True)
    )
    return f"  round {index + 1}  {cell:<18} {costs}"
