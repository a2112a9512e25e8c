"""Bounds of dimensions, as exported programs and compiled packages tell them."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from torch.export import ExportedProgram

from trivet.backends.api.extent import FREE, Extent, Extents, limited
from trivet.backends.api.tensor import Shape

_LEAST_ENFORCED = 3
"""torch.export takes smaller lower bounds as assumptions of its compiler: programs take 0 to 2."""
_SOURCE_SUFFIX = ".wrapper.cpp"
_CHECK = re.compile(
    rb"input_handles\[(\d+)\]: (dim value is too small|dim value is too large|unmatched dim value)"
    rb' at (\d+), "\s*<< "expected(?: it)?(?: to be)?:? ?([<>]=)? ?(\d+), "'
)
"""Inductor's own checks of a package's inputs, which it leaves out unless an environment variable
asks for them."""


def exported_extents(exported: ExportedProgram, shape: Shape) -> Extents:
    """Of a tensor whose dimensions are numbers or symbols of the program."""
    return limited(_extent(exported, dim) for dim in shape)


def _extent(exported: ExportedProgram, dim: object) -> Extent:
    if isinstance(dim, int):
        return FREE
    expression = dim.node.expr  # type: ignore[attr-defined]  # a SymInt
    values = exported.range_constraints.get(expression)
    if values is None:
        return FREE
    low = int(values.lower) if values.lower.is_Integer else 0
    high = int(values.upper) if values.upper.is_Integer else None
    return Extent(low if low >= _LEAST_ENFORCED else 0, high)


def compiled_extents(path: Path) -> Mapping[int, Extents]:
    """Of the inputs of an AOTInductor package, by position, from the source that lies in it; none
    where it does not."""
    found: dict[int, dict[int, Extent]] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(_SOURCE_SUFFIX):
                _read_checks(archive.read(name), found)
    return {
        position: limited(by_place.get(place, FREE) for place in range(max(by_place) + 1))
        for position, by_place in found.items()
    }


def _read_checks(source: bytes, found: dict[int, dict[int, Extent]]) -> None:
    for check in _CHECK.finditer(source):
        by_place = found.setdefault(int(check[1]), {})
        place, bound = int(check[3]), int(check[5])
        known = by_place.get(place, FREE)
        if check[2].endswith(b"small"):
            low = bound if bound >= _LEAST_ENFORCED else 0
            by_place[place] = Extent(low, known.high)
        elif check[2].endswith(b"large"):
            by_place[place] = Extent(known.low, bound)
        else:
            by_place[place] = Extent(bound, bound)
