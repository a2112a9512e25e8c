"""Whether a GGUF file's header is what it claims to be, before anything is made from it.

Every count, length and place in it is a number that whoever wrote the file has chosen. The library
that reads it believes them; here each is held against the file's size first, in Python's integers,
which do not overflow. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
from dataclasses import dataclass
from math import prod
from pathlib import Path

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""By the type's number; 8 is a text, 9 an array."""
_TEXT, _ARRAY, _UINT32 = 8, 9, 4
_MAX_DIMS = 4
_MAX_NAME_BYTES = 65_535
_MAX_PAIRS = 65_536
_MAX_TENSORS = 262_144
_MAX_ELEMENTS = 16_777_216
"""Of one array: several times the largest vocabulary."""
_DEFAULT_ALIGNMENT = 32


class BrokenHeader(ValueError):
    """The header contradicts itself or the file."""


def check_header(path: Path) -> None:
    """Raises BrokenHeader, or OSError when the file cannot be read."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise BrokenHeader("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Header(data).check()


@dataclass(slots=True)
class _Header:
    """A walk through the header; `place` is the next byte."""

    data: mmap.mmap
    place: int = 0
    alignment: int = _DEFAULT_ALIGNMENT

    def check(self) -> None:
        if self._take(4) != _MAGIC:
            raise BrokenHeader("it does not begin with 'GGUF'")
        version = self._number(4)
        if version not in _VERSIONS:
            raise BrokenHeader(f"it is of version {version}; 2 and 3 can be read")
        num_tensors = self._count("tensors", _MAX_TENSORS)
        num_pairs = self._count("metadata pairs", _MAX_PAIRS)
        names: set[bytes] = set()
        for _ in range(num_pairs):
            name = self._text()
            if len(name) > _MAX_NAME_BYTES or name in names:
                raise BrokenHeader(f"the metadata name {name[:64]!r} is too long or there twice")
            names.add(name)
            self._check_value(name)
        tensors = [self._tensor() for _ in range(num_tensors)]
        self._check_places(tensors)

    def _check_value(self, name: bytes) -> None:
        kind = self._number(4)
        if name == b"general.alignment":
            if kind != _UINT32:
                raise BrokenHeader("general.alignment is no 32-bit number")
            self.alignment = self._number(4)
            if self.alignment == 0 or self.alignment & (self.alignment - 1):
                raise BrokenHeader(f"general.alignment is {self.alignment}, no power of two")
        elif kind == _TEXT:
            self._text()
        elif kind == _ARRAY:
            self._check_array(name)
        else:
            self._take(self._scalar_bytes(kind))

    def _check_array(self, name: bytes) -> None:
        kind = self._number(4)
        num_elements = self._number(8)
        if kind == _ARRAY:
            raise BrokenHeader(f"{name[:64]!r} is an array of arrays")
        least_bytes = 8 if kind == _TEXT else self._scalar_bytes(kind)
        if num_elements > _MAX_ELEMENTS or num_elements * least_bytes > self._rest():
            raise BrokenHeader(f"{name[:64]!r} claims {num_elements} elements")
        if kind != _TEXT:
            self._take(num_elements * least_bytes)
            return
        for _ in range(num_elements):
            self._text()

    def _tensor(self) -> tuple[bytes, int, int]:
        """Name, place in the data and size."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self._text()
        num_dims = self._number(4)
        if num_dims > _MAX_DIMS:
            raise BrokenHeader(f"tensor {name[:64]!r} has {num_dims} dimensions; 4 can be")
        dims = [self._number(8) for _ in range(num_dims)]
        kind = self._number(4)
        start = self._number(8)
        try:
            block_elements, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (KeyError, ValueError):
            raise BrokenHeader(f"tensor {name[:64]!r} is of the unknown type {kind}") from None
        num_elements = prod(dims)
        if 0 in dims or (dims and dims[0] % block_elements):
            raise BrokenHeader(f"tensor {name[:64]!r} has rows of no whole blocks")
        return name, start, num_elements // block_elements * block_bytes

    def _check_places(self, tensors: list[tuple[bytes, int, int]]) -> None:
        """All within the data, none upon another."""
        data_start = -(-self.place // self.alignment) * self.alignment
        data_bytes = len(self.data) - data_start
        end = 0
        names: set[bytes] = set()
        for name, start, size in sorted(tensors, key=lambda each: each[1]):
            if name in names:
                raise BrokenHeader(f"tensor {name[:64]!r} is there twice")
            names.add(name)
            if start % self.alignment or start < end or start + size > data_bytes:
                raise BrokenHeader(
                    f"tensor {name[:64]!r} claims {size} bytes at {start} of {max(data_bytes, 0)}"
                )
            end = start + size

    # -- what lies at the place ----------------------------------------------------------------

    def _rest(self) -> int:
        return len(self.data) - self.place

    def _take(self, size: int) -> bytes:
        if size > self._rest():
            raise BrokenHeader(f"it ends at byte {len(self.data)}, within its header")
        self.place += size
        return self.data[self.place - size : self.place]

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _count(self, what: str, most: int) -> int:
        count = self._number(8)
        if count > most:
            raise BrokenHeader(f"it claims {count} {what}; {most} can be")
        return count

    def _text(self) -> bytes:
        return self._take(self._number(8))

    def _scalar_bytes(self, kind: int) -> int:
        size = _SCALAR_BYTES.get(kind)
        if size is None:
            raise BrokenHeader(f"a value is of the unknown type {kind}")
        return size
