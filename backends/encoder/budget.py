"""Which rows are computed together: alike in length, no more padded tokens than a budget. Pure."""

from collections.abc import Iterator, Sequence

_SLACK = 1.25
"""A rest of a few rows costs more alone than beside the others."""


def groups_of(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of rows by length, the longest first, so that rows times their longest stays within
    the budget. A row that is longer than it is alone."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    if order and lengths[order[0]] * len(order) <= budget * _SLACK:
        yield order
        return
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size
