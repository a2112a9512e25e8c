"""Shapes on the way from one step to the next; -1 is any size. Pure."""

from trivet.backends.api import Shape


def shift_between(
    has: Shape, wanted: Shape, *, may_add: bool = False, may_drop: bool = False
) -> int | None:
    """How a tensor gets the wanted shape: 0 as it is, 1 with a leading 1 put before (where `wanted`
    has a batch dimension), -1 with it taken off (where `has` has one); None if it cannot."""
    if len(has) == len(wanted):
        return 0 if _alike(has, wanted) else None
    if may_add and len(has) + 1 == len(wanted):
        return 1 if _alike(has, wanted[1:]) else None
    if may_drop and len(has) == len(wanted) + 1:
        return -1 if _alike(has[1:], wanted) else None
    return None


def element_dims(dims: Shape, *, batching: bool) -> Shape | None:
    """The dims of a list's elements; in a batching ensemble the list comes after the batch."""
    num_leading = 2 if batching else 1
    return dims[num_leading:] if len(dims) >= num_leading else None


def gathered_dims(dims: Shape, *, batching: bool) -> Shape:
    """The leading dims of what is gathered from a list's elements."""
    return dims[: 2 if batching else 1]


def _alike(one: Shape, other: Shape) -> bool:
    return len(one) == len(other) and all(
        -1 in (a, b) or a == b for a, b in zip(one, other, strict=True)
    )
