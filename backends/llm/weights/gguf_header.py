"""Reads a GGUF file's header, and believes none of it.

Every count, length and place in it is a number that whoever wrote the file has chosen. Here each is
held against the file's size before anything is made of it, in Python's integers, which do not
overflow. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

The gguf package's reader makes arrays of each of a vocabulary's texts, which takes seconds.
"""

import mmap
import struct
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
"""Formats of `struct` by the type's number; 8 is a text, 9 an array."""
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


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies in its file, and as what."""

    kind: int
    """A GGMLQuantizationType."""
    shape: tuple[int, ...]
    """In bytes: the last dimension is a row's."""
    start: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a file says of itself."""

    metadata: dict[str, Any]
    """Numbers, texts, and lists of them."""
    tensors: dict[str, GgufTensor]


def read_header(path: Path) -> GgufHeader:
    """Raises BrokenHeader, or OSError when the file cannot be read."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise BrokenHeader("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Walk(data).read()


@dataclass(slots=True)
class _Walk:
    """Through the header; `place` is the next byte."""

    data: mmap.mmap
    place: int = 0
    alignment: int = _DEFAULT_ALIGNMENT

    def read(self) -> GgufHeader:
        if self._take(4) != _MAGIC:
            raise BrokenHeader("it does not begin with 'GGUF'")
        version = self._number(4)
        if version not in _VERSIONS:
            raise BrokenHeader(f"it is of version {version}; 2 and 3 can be read")
        num_tensors = self._count("tensors", _MAX_TENSORS)
        num_pairs = self._count("metadata pairs", _MAX_PAIRS)
        metadata: dict[str, Any] = {}
        for _ in range(num_pairs):
            name = self._text()
            if len(name) > _MAX_NAME_BYTES or name in metadata:
                raise BrokenHeader(f"the metadata name {name[:64]!r} is too long or there twice")
            metadata[name] = self._value(name)
        tensors = [self._tensor() for _ in range(num_tensors)]
        return GgufHeader(metadata, self._placed(tensors))

    def _value(self, name: str) -> Any:
        kind = self._number(4)
        if name == "general.alignment":
            if kind != _UINT32:
                raise BrokenHeader("general.alignment is no 32-bit number")
            self.alignment = self._number(4)
            if self.alignment == 0 or self.alignment & (self.alignment - 1):
                raise BrokenHeader(f"general.alignment is {self.alignment}, no power of two")
            return self.alignment
        if kind == _TEXT:
            return self._text()
        if kind == _ARRAY:
            return self._array(name)
        return self._scalars(kind, 1)[0]

    def _array(self, name: str) -> list[Any]:
        kind = self._number(4)
        num_elements = self._number(8)
        if kind == _ARRAY:
            raise BrokenHeader(f"{name[:64]!r} is an array of arrays")
        least_bytes = 8 if kind == _TEXT else struct.calcsize(_scalar_format(kind))
        if num_elements > _MAX_ELEMENTS or num_elements * least_bytes > self._rest():
            raise BrokenHeader(f"{name[:64]!r} claims {num_elements} elements")
        if kind != _TEXT:
            return list(self._scalars(kind, num_elements))
        return self._texts(num_elements)

    def _tensor(self) -> tuple[str, GgufTensor]:
        """A name, and its tensor as if the data began where the file does."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self._text()
        num_dims = self._number(4)
        if num_dims > _MAX_DIMS:
            raise BrokenHeader(f"tensor {name[:64]!r} has {num_dims} dimensions; 4 can be")
        dims = [self._number(8) for _ in range(num_dims)] or [1]
        kind = self._number(4)
        start = self._number(8)
        try:
            block_elements, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (KeyError, ValueError):
            raise BrokenHeader(f"tensor {name[:64]!r} is of the unknown type {kind}") from None
        num_elements = prod(dims)
        if 0 in dims or dims[0] % block_elements:
            raise BrokenHeader(
                f"tensor {name[:64]!r} has rows of {dims[0]} numbers, which are no whole blocks of "
                f"{block_elements}"
            )
        row_bytes = dims[0] // block_elements * block_bytes
        shape = (*reversed(dims[1:]), row_bytes)
        return name, GgufTensor(kind, shape, start, num_elements // block_elements * block_bytes)

    def _placed(self, tensors: list[tuple[str, GgufTensor]]) -> dict[str, GgufTensor]:
        """All within the data, none upon another."""
        data_start = -(-self.place // self.alignment) * self.alignment
        data_bytes = len(self.data) - data_start
        end = 0
        placed: dict[str, GgufTensor] = {}
        for name, tensor in sorted(tensors, key=lambda each: each[1].start):
            if name in placed:
                raise BrokenHeader(f"tensor {name[:64]!r} is there twice")
            start, size = tensor.start, tensor.size_bytes
            if start % self.alignment or start < end or start + size > data_bytes:
                raise BrokenHeader(
                    f"tensor {name[:64]!r} claims {size} bytes at {start} of {max(data_bytes, 0)}"
                )
            end = start + size
            placed[name] = replace(tensor, start=data_start + start)
        return placed

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

    def _text(self) -> str:
        text = self._take(self._number(8))
        try:
            return text.decode()
        except UnicodeDecodeError:
            raise BrokenHeader(f"the text {text[:64]!r} is no UTF-8") from None

    def _texts(self, count: int) -> list[str]:
        """A vocabulary's and its merges': a hundred thousand, one behind the other."""
        data, place, end = self.data, self.place, len(self.data)
        size_at = struct.Struct("<Q").unpack_from
        found = []
        for _ in range(count):
            stop = place + 8
            if stop <= end:
                place, stop = stop, stop + size_at(data, place)[0]
            if stop > end:
                raise BrokenHeader(f"it ends at byte {end}, within its header")
            found.append(data[place:stop])
            place = stop
        self.place = place
        try:
            return [text.decode() for text in found]
        except UnicodeDecodeError as error:
            raise BrokenHeader(f"the text {error.object[:64]!r} is no UTF-8") from None

    def _scalars(self, kind: int, count: int) -> tuple[Any, ...]:
        form = f"<{count}{_scalar_format(kind)}"
        return struct.unpack(form, self._take(struct.calcsize(form)))


def _scalar_format(kind: int) -> str:
    form = _SCALARS.get(kind)
    if form is None:
        raise BrokenHeader(f"a value is of the unknown type {kind}")
    return form
