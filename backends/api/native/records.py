"""What each request makes and counts: in C (`records.c`), where that was compiled."""

import dataclasses
from bisect import bisect_left
from collections.abc import Callable
from typing import TypeVar

try:
    from trivet.backends.api.native import _records  # type: ignore[attr-defined, unused-ignore]
except ImportError:  # no compiler, or another Python than the one that it was compiled for
    _records = None

_T = TypeVar("_T")
Field = tuple[str, object, bool, bool]
"""Its name; what it is without an argument, `...` nothing; whether that is called for it; whether
an argument may set it."""


def quickened(kind: type[_T]) -> type[_T]:
    """The same slotted dataclass, whose calls do without `__init__`: so it does nothing but set
    fields."""
    if hasattr(kind, "__post_init__"):
        raise TypeError(f"{kind.__name__} does more than set fields")
    if _records is not None:
        told = map(_told, dataclasses.fields(kind))  # type: ignore[arg-type]
        _records.quicken(kind, tuple(sorted(told, key=lambda field: not field[-1])))
    return kind


def _told(field: "dataclasses.Field[object]") -> Field:
    if field.kw_only:
        raise TypeError(f"field '{field.name}' has no place among the arguments")
    if field.default_factory is not dataclasses.MISSING:
        return field.name, field.default_factory, True, field.init
    given = ... if field.default is dataclasses.MISSING else field.default
    return field.name, given, False, field.init


def _tally(counts: list[int], bounds: tuple[int, ...], values: list[int]) -> int:
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    return sum(values)


tally: Callable[[list[int], tuple[int, ...], list[int]], int] = (
    _tally if _records is None else _records.tally
)
"""Counts whole numbers in the buckets below these bounds, the last one for all above; returns their
sum."""
