"""The order of measurements: A B, B A, A B, ...: drifts of the machine meet both commits."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from bench.against.checkout import Side
from bench.against.comparison import Comparison, Cost, bar_of

Cells = Mapping[str, Mapping[str, Callable[[], Cost]]]
"""How to measure, by cell and by the name of the side."""


class Part(Protocol):
    """Cells that share their processes."""

    def open(self, sides: Iterable[Side]) -> AbstractContextManager[Cells]:
        """Both sides' processes for one round."""


def run_rounds(
    part: Part, sides: tuple[Side, Side], rounds: int, bars: Mapping[str, float]
) -> list[Comparison]:
    """Measures all cells of a part that many times on both sides."""
    costs: dict[str, dict[str, list[Cost]]] = {}
    for index in range(rounds):
        order = sides if index % 2 == 0 else sides[::-1]
        with part.open(order) as cells:
            for cell, measures in cells.items():
                seen = costs.setdefault(cell, {side.name: [] for side in sides})
                for side in order:
                    seen[side.name].append(measures[side.name]())
                print(_line(index, cell, seen), flush=True)
    old, new = (side.name for side in sides)
    return [
        Comparison(cell, seen[old], seen[new], bar_of(cell, bars)) for cell, seen in costs.items()
    ]


def _line(index: int, cell: str, seen: Mapping[str, list[Cost]]) -> str:
    costs = "  ".join(
        f"{side} {each[-1].cpu_us:,.1f} us {each[-1].rate_per_s:,.0f}/s"
        for side, each in seen.items()
    )
    return f"  round {index + 1}  {cell:<18} {costs}"
