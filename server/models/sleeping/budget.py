"""How much memory models may take together, and the arithmetic where one cannot be among them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from trivet.backends.api import InvalidConfig, LoadFailed

Place = int | None
"""A GPU by its number; None: the host."""
Sizes = Mapping[Place, int]
"""Bytes."""
FLAG = "--model-memory-budget"
_UNITS = {
    "": 1,
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
}
_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?) ?(?P<unit>[KMGT]i?B|B|%|)")
_SHOWN = 8
"""Models that an error names."""


def total(sizes: Iterable[Sizes]) -> dict[Place, int]:
    """All together."""
    found: dict[Place, int] = {}
    for each in sizes:
        for place, size in each.items():
            found[place] = found.get(place, 0) + size
    return found


@dataclass(frozen=True, slots=True)
class Budget:
    """What there is for models. A place that is not in it has no limit."""

    limits: Sizes

    @classmethod
    def parse(cls, given: Sequence[str], room_at: Callable[[Place], int]) -> "Budget | None":
        """Of `[GPU:]SIZE`s; `room_at` says what a place has, 0 for a GPU that is not there. None
        where none is given. Raises InvalidConfig."""
        limits: dict[Place, int] = {}
        for text in given:
            where, colon, size = text.rpartition(":")
            if colon and not where.isdecimal():
                raise _wrong(text)
            place = int(where) if colon else None
            limits[place] = _bytes(text, size.strip(), room_at(place))
        return cls(limits) if limits else None

    def lacking(self, used: Sizes, wanted: Sizes) -> dict[Place, int]:
        """What would be too much of what is used if this were, too."""
        all_of_it = total((used, wanted))
        over = {place: all_of_it.get(place, 0) - limit for place, limit in self.limits.items()}
        return {place: size for place, size in over.items() if size > 0}

    def require(self, name: str, sizes: Sizes, fixed: Mapping[str, Sizes]) -> None:
        """`fixed`: others that never give back what they have. Raises LoadFailed where a model
        could never be beside them."""
        lacking = self.lacking(total(fixed.values()), sizes)
        for place in lacking:
            limit, size = self.limits[place], sizes.get(place, 0)
            where = "host memory" if place is None else f"memory of GPU {place}"
            if not size:
                continue
            text = f"model '{name}' takes {_gib(size)} of {where}, and {FLAG} is {_gib(limit)}"
            pinned = {key: each[place] for key, each in fixed.items() if each.get(place)}
            if pinned and size <= limit:
                largest = sorted(pinned, key=lambda key: -pinned[key])[:_SHOWN]
                listed = ", ".join(f"'{key}' {_gib(pinned[key])}" for key in largest)
                left = limit - sum(pinned.values())
                text += f", of which {_gib(left)} are left beside what is pinned ({listed})"
            raise LoadFailed(f"{text}: give the models more, or pin fewer")


def _bytes(text: str, size: str, room: int) -> int:
    match = _SIZE.fullmatch(size)
    if match is None:
        raise _wrong(text)
    number, unit = float(match["number"]), match["unit"]
    is_share = unit == "%" or (not unit and "." in match["number"])
    if is_share:
        share = number / 100 if unit == "%" else number
        if not 0 < share <= 1:
            raise _wrong(text)
        if not room:
            raise InvalidConfig(f"{FLAG} is '{text}', but there is no such GPU here")
        return int(share * room)
    found = int(number * _UNITS[unit])
    if not found:
        raise _wrong(text)
    return found


def _wrong(text: str) -> InvalidConfig:
    return InvalidConfig(
        f"{FLAG} is '{text[:64]}'; write a size such as 8GiB, 500MB or a number of bytes, or a "
        "share of the memory such as 0.5 or 50%, for a GPU behind its number: 0:0.9"
    )


def _gib(size_bytes: int) -> str:
    if size_bytes < 1 << 30:
        return f"{size_bytes / (1 << 20):.1f} MiB"
    return f"{size_bytes / (1 << 30):.2f} GiB"


@dataclass(frozen=True, slots=True)
class MemoryTerms:
    """What the server's options say."""

    budget: Budget | None = None
    idle_s: float = 0.0
    """After which time without use models sleep whose config does not say; 0: they do not."""


NO_TERMS = MemoryTerms()
