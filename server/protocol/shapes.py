"""What a shape in a request may be, whichever protocol it came by. Pure."""

from math import prod

from trivet.backends.api import DataType, InvalidRequest, Shape, TooLarge

MAX_RANK = 64
"""Of a tensor's shape; numpy has no more dimensions."""
MAX_STRINGS = 4 * 1024 * 1024
"""Elements of a BYTES tensor. They are found one after another on the event loop, at up to 130 ns
each: more of them would hold up everybody else for long."""
_MAX_INT64 = 2**63 - 1


def check_shape(name: str, datatype: DataType, shape: Shape) -> None:
    """Raises InvalidRequest for a shape of input `name` that no tensor can have, TooLarge for one
    that none should have."""
    if len(shape) > MAX_RANK:
        raise InvalidRequest(
            f"'shape' of input '{name}' has {len(shape)} dimensions, limit {MAX_RANK}"
        )
    if any(dim < 0 for dim in shape):
        raise InvalidRequest(
            f"'shape' of input '{name}' has dimension {min(shape)}: each must be positive, or 0 "
            "for a tensor without elements"
        )
    # Zeros left out: the memory's strides must fit as well.
    elements = prod(dim for dim in shape if dim)
    if elements > _MAX_INT64:
        raise InvalidRequest(
            f"'shape' of input '{name}' causes total element count to exceed maximum size of "
            f"{_MAX_INT64}"
        )
    if elements * datatype.size > _MAX_INT64:
        raise InvalidRequest(f"byte size overflow for input '{name}': its shape is {list(shape)}")
    if datatype is DataType.BYTES and elements > MAX_STRINGS and 0 not in shape:
        raise TooLarge(
            f"input '{name}' has {elements} string elements, the limit is {MAX_STRINGS}; send them "
            "in several requests"
        )
