"""Where the values of a request's inputs are, and how many bytes, whichever protocol it came by."""

from dataclasses import dataclass
from math import prod

from trivet.backends.api import DataType, InvalidRequest, Shape, Tensor
from trivet.server.protocol.wishes import RegionSlice


@dataclass(frozen=True, slots=True)
class InputPlan:
    """One input. Its values are in `tensor`, in `region` or, where both are None, among the bytes
    that come with the message."""

    name: str
    datatype: DataType
    shape: Shape
    size_bytes: int | None
    """How many bytes they are; None where only they can say: strings."""
    region: RegionSlice | None = None
    tensor: Tensor | None = None


def byte_size(datatype: DataType, shape: Shape) -> int | None:
    """Of the values of a tensor; None for strings, which say it themselves."""
    return None if datatype is DataType.BYTES else prod(shape) * datatype.size


def check_byte_size(name: str, expected: int | None, size: int, model_name: str) -> None:
    """Raises InvalidRequest when there are not as many bytes for an input as its shape asks for."""
    if expected is not None and size != expected:
        raise InvalidRequest(
            f"input byte size mismatch for input '{name}' for model '{model_name}'. "
            f"Expected {expected}, got {size}"
        )
