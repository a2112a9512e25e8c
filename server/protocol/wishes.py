"""What a client wants done with one output besides getting it. Pure, shared by the front rooms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from trivet.backends.api import InvalidRequest, ParameterValue

REGION, OFFSET, BYTE_SIZE = (
    "shared_memory_region",
    "shared_memory_offset",
    "shared_memory_byte_size",
)


@dataclass(frozen=True, slots=True)
class RegionSlice:
    """A part of a registered shared memory region, in bytes."""

    name: str
    offset: int
    byte_size: int

    @classmethod
    def of(cls, tensor: str, parameters: Mapping[str, ParameterValue]) -> Self | None:
        """The slice that a tensor's parameters name, None without one. Raises InvalidRequest."""
        name = parameters.get(REGION)
        if name is None:
            return None
        if not isinstance(name, str):
            raise InvalidRequest(f"parameter '{REGION}' of '{tensor}' must be a string")
        if BYTE_SIZE not in parameters:
            raise InvalidRequest(f"'{tensor}' is in shared memory but has no '{BYTE_SIZE}'")
        offset = _size(tensor, OFFSET, parameters.get(OFFSET, 0))
        return cls(name, offset, _size(tensor, BYTE_SIZE, parameters[BYTE_SIZE]))


@dataclass(frozen=True, slots=True)
class OutputWish:
    """How one output is to be returned."""

    name: str
    classification: int = 0
    """Return the best so many classes instead of the tensor; 0 is the tensor."""
    region: RegionSlice | None = None
    binary: bool = False
    """As bytes behind the JSON (HTTP only)."""

    @property
    def is_plain(self) -> bool:
        """Whether the tensor is simply put into the response."""
        return not self.classification and self.region is None


def parse_wish(name: str, parameters: Mapping[str, ParameterValue]) -> OutputWish:
    """The wish in a requested output's parameters. Raises InvalidRequest."""
    if not parameters:
        return OutputWish(name)
    count = parameters.get("classification", 0)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise InvalidRequest(
            f"parameter 'classification' of output '{name}' must be a positive integer, got {count}"
        )
    if "classification" in parameters and count == 0:
        raise InvalidRequest(f"parameter 'classification' of output '{name}' must be > 0, got 0")
    binary = parameters.get("binary_data", False)
    if not isinstance(binary, bool):
        raise InvalidRequest(f"parameter 'binary_data' of output '{name}' must be a boolean")
    region = RegionSlice.of(name, parameters)
    if region is not None and (count or binary):
        other = "classification" if count else "binary_data"
        raise InvalidRequest(
            f"output '{name}' cannot have both '{REGION}' and '{other}'; leave one of them out"
        )
    return OutputWish(name, count, region, binary)


def _size(tensor: str, parameter: str, value: ParameterValue) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise InvalidRequest(
            f"parameter '{parameter}' of '{tensor}' must be an integer from 0 to {2**63 - 1}, "
            f"got {value!r}"
        )
    return value
