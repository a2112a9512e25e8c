"""The tensor handle that travels through the house: a name, a type, a shape and somebody's memory.

No step copies it. Numeric data is a numpy view on the buffer it came in (a request body, a shared
memory region, a model's output); BYTES stays packed, as it is on the wire, until a model asks for
Python objects.
"""

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from trivet.backends.api.datatype import DataType
from trivet.backends.api.dlpack import make_capsule
from trivet.backends.api.native.records import quickened

if TYPE_CHECKING:
    from trivet.backends.api.device import DeviceArray

Shape = tuple[int, ...]
_BYTES = DataType.BYTES
"""A constant: looking up an enum's member costs as much as a call."""
_HOST = (1, 0)
"""DLPack's name for host memory."""
_LENGTH = struct.Struct("<I")
_LEAST_RUN = 64
"""Elements of equal length in a row from which on a run is worth numpy's overhead."""
_EQUAL_BLOCK, _EACH_BLOCK = 65536, 1024
"""Elements to add at a time: what is alike is looked for anew after each block."""


class PackedBytes:
    """BYTES elements in wire form: for each a uint32 little-endian length, then its bytes.

    `blob` keeps its owner alive; `offsets[i]` is where element i's length prefix starts and
    `offsets[n]` is the end. They are packed too: a list of Python numbers would take ten times the
    memory of a body of short strings.
    """

    __slots__ = ("blob", "offsets")

    def __init__(self, blob: memoryview, offsets: Sequence[int]) -> None:
        self.blob = blob
        self.offsets = offsets

    @classmethod
    def parse(cls, blob: memoryview, max_elements: int | None = None) -> "PackedBytes":
        """Finds the elements, at most one more than `max_elements` of them, which is enough to see
        that there are too many. Raises ValueError where a length is cut off or goes past the end.
        """
        limit = len(blob) if max_elements is None else max_elements + 1
        offsets = array("q", [0])
        while offsets[-1] < len(blob) and len(offsets) <= limit:
            num_wanted = limit + 1 - len(offsets)
            if not _add_equal(blob, offsets, min(num_wanted, _EQUAL_BLOCK)):
                _add_each(blob, offsets, min(num_wanted, _EACH_BLOCK))
        return cls(blob[: offsets[-1]], offsets)

    @classmethod
    def pack(cls, values: np.ndarray) -> "PackedBytes":
        """Wire form of an array of bytes or str objects (str as UTF-8), in row-major order."""
        parts: list[bytes] = []
        offsets, position = array("q", [0]), 0
        for value in values.ravel():
            element = value.encode() if isinstance(value, str) else bytes(value)
            parts += (_LENGTH.pack(len(element)), element)
            position += 4 + len(element)
            offsets.append(position)
        return cls(memoryview(b"".join(parts)), offsets)

    @classmethod
    def join(cls, parts: Sequence["PackedBytes"]) -> "PackedBytes":
        """The elements of all parts, one after another: a copy."""
        offsets = array("q", [0])
        for part in parts:
            base = offsets[-1]
            offsets.extend(base + offset for offset in part.offsets[1:])
        return cls(memoryview(b"".join(part.blob for part in parts)), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def objects(self) -> np.ndarray:
        """A flat array of Python bytes objects: one copy per element."""
        values = np.empty(len(self), dtype=object)
        for index in range(len(self)):
            values[index] = bytes(self.blob[self.offsets[index] + 4 : self.offsets[index + 1]])
        return values

    def slice(self, start: int, stop: int) -> "PackedBytes":
        """Elements start..stop as a view on the same blob."""
        base = self.offsets[start]
        blob = self.blob[base : self.offsets[stop]]
        return PackedBytes(blob, [offset - base for offset in self.offsets[start : stop + 1]])


def _strings(raw: memoryview, expected: int) -> PackedBytes:
    # Each element has at least its length: no need to look for more than there can be.
    if expected * 4 > len(raw):
        raise ValueError(f"expected {expected} string elements, got at most {len(raw) // 4}")
    packed = PackedBytes.parse(raw, expected)
    if len(packed) > expected:
        raise ValueError(
            f"unexpected number of string elements {len(packed)}, expecting {expected}"
        )
    if len(packed) < expected:
        raise ValueError(f"expected {expected} string elements, got {len(packed)}")
    return packed


def _add_equal(blob: memoryview, offsets: "array[int]", num_wanted: int) -> bool:
    """Adds a run of elements of equal length, which numpy finds a hundred times faster; False,
    having done nothing, where there is no run to speak of."""
    position, end = offsets[-1], len(blob)
    if end - position < 4:
        return False
    (length,) = _LENGTH.unpack_from(blob, position)
    step = 4 + length
    count = min((end - position) // step, num_wanted)
    if count < _LEAST_RUN:
        return False
    lengths = np.ndarray((count,), "<u4", blob, position, (step,))
    if (lengths[:_LEAST_RUN] != length).any():
        return False
    others = np.flatnonzero(lengths != length)
    run = int(others[0]) if others.size else count
    ends = np.arange(position + step, position + run * step + 1, step, dtype=np.int64)
    offsets.frombytes(ends.tobytes())
    return True


def _add_each(blob: memoryview, offsets: "array[int]", num_wanted: int) -> None:
    """Adds elements one by one. Raises ValueError where one is not whole."""
    position, end = offsets[-1], len(blob)
    last_start = end - 4
    unpack_from, add = _LENGTH.unpack_from, offsets.append
    for _ in range(num_wanted):
        if position > last_start:
            break
        position += 4 + unpack_from(blob, position)[0]
        add(position)
    if position > end:
        start = offsets[-2]
        raise ValueError(
            f"incomplete string data at byte {start}: expecting string of length "
            f"{position - start - 4} but only {end - start - 4} bytes available"
        )
    if last_start < position < end:
        raise ValueError(
            f"incomplete string length indicator at byte {position}: "
            f"expecting 4 bytes, got {end - position}"
        )


@quickened
@dataclass(slots=True, eq=False, repr=False, weakref_slot=True)
class Tensor:
    """A named array of one datatype. Treat it as immutable: others may hold the same memory.

    `data` is a C-contiguous numpy array of `shape` for numbers (dtype exactly `datatype.dtype`),
    and for BYTES either an object array of `shape` (bytes or str elements) or a PackedBytes.
    """

    name: str
    datatype: DataType
    shape: Shape
    data: np.ndarray | PackedBytes
    rows: tuple[np.ndarray, int] | None = None
    """The array that `data` is a slice of, and at which row it begins, where that is known:
    neighbours are joined again without a copy (`join_rows`)."""

    @property
    def device(self) -> "DeviceArray | None":
        """Where the values lie if that is not host memory; see DeviceTensor."""
        return None

    @property
    def is_on_host(self) -> bool:
        """Whether host values are there without a copy."""
        return True

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> "Tensor":
        """A tensor on an array's memory; only a non-contiguous array is copied.

        Raises ValueError for a dtype that has no tensor datatype.
        """
        datatype = DataType.from_numpy(array.dtype)
        if datatype is DataType.BYTES:
            return cls(name, datatype, array.shape, array.astype(object, copy=False))
        # np.ascontiguousarray would turn a scalar into shape (1,).
        data = array if array.flags.c_contiguous else array.copy(order="C")
        return cls(name, datatype, array.shape, data)

    @classmethod
    def from_raw(
        cls, name: str, datatype: DataType, shape: Shape, raw: memoryview | bytes
    ) -> "Tensor":
        """A tensor on wire bytes, without a copy. Raises ValueError when the size does not fit."""
        if datatype is _BYTES:
            return cls(name, datatype, shape, _strings(memoryview(raw), prod(shape)))
        if len(raw) != prod(shape) * datatype.size:
            raise ValueError(
                f"{len(raw)} bytes are no {datatype.value} tensor of shape {list(shape)}"
            )
        # In one step: frombuffer and reshape are two arrays.
        return cls(name, datatype, shape, np.ndarray(shape, datatype.dtype, raw))

    def numpy(self) -> np.ndarray:
        """The values as an array of `shape`: a view for numbers, bytes objects for packed BYTES."""
        if isinstance(self.data, PackedBytes):
            return self.data.objects().reshape(self.shape)
        return self.data

    def packed(self) -> PackedBytes:
        """A BYTES tensor in wire form; object arrays are packed (a copy)."""
        return self.data if isinstance(self.data, PackedBytes) else PackedBytes.pack(self.data)

    def raw(self) -> memoryview:
        """The wire bytes: little-endian, row-major; a view except for BYTES held as objects."""
        if self.datatype is DataType.BYTES:
            return self.packed().blob
        assert isinstance(self.data, np.ndarray)
        # uint8 first: the buffer protocol knows no bfloat16.
        return self.data.reshape(-1).view(np.uint8).data

    def small_raw(self, max_bytes: int) -> bytes | memoryview:
        """As `raw`, but up to `max_bytes` a copy, which costs less than views do."""
        data = self.data
        if self.datatype is _BYTES or isinstance(data, PackedBytes) or data.nbytes > max_bytes:
            return self.raw()
        return data.tobytes()

    @property
    def nbytes(self) -> int:
        """Bytes in wire form, without packing anything."""
        data = self.data
        if isinstance(data, PackedBytes):
            return len(data.blob)
        if self.datatype is not _BYTES:
            return data.nbytes
        return sum(4 + len(v.encode() if isinstance(v, str) else v) for v in data.ravel())

    def under(self, name: str) -> "Tensor":
        """The same data under another name."""
        tensor = Tensor(name, self.datatype, self.shape, self.data)
        tensor.rows = self.rows
        return tensor

    def __dlpack__(self, **options: Any) -> object:
        """For frameworks that take tensors by DLPack, where it lies; they must not write to it.
        Raises TypeError for BYTES."""
        array = self._array()
        if array.flags.writeable and self.datatype is not DataType.BF16:
            return array.__dlpack__(**options)
        # What numpy does not export: a request's own bytes, and a type that it has no name for.
        array = array.copy() if options.get("copy") else array
        address = array.__array_interface__["data"][0]
        return make_capsule(array, address, array.dtype, array.shape, _HOST)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Where it lies. Raises TypeError for BYTES."""
        self._array()
        return _HOST

    def _array(self) -> np.ndarray:
        if not isinstance(self.data, np.ndarray) or self.datatype is DataType.BYTES:
            raise TypeError(f"tensor '{self.name}' is BYTES, which DLPack does not know")
        return self.data

    def renamed(self, name: str, shape: Shape) -> "Tensor":
        """The same memory under another name and a shape of as many elements."""
        data = self.data
        if shape != self.shape and not isinstance(data, PackedBytes):
            data = data.reshape(shape)
        return Tensor(name, self.datatype, shape, data)

    def __repr__(self) -> str:
        return f"Tensor({self.name!r}, {self.datatype.value}, {list(self.shape)})"


def join_rows(tensors: Sequence[Tensor]) -> np.ndarray | None:
    """The slice that tensors are the parts of, if they lie one after another in the same array."""
    first = tensors[0].rows
    if first is None:
        return None
    whole, start = first
    stop = start
    for tensor in tensors:
        rows = tensor.rows
        if rows is None or rows[0] is not whole or rows[1] != stop:
            return None
        stop += tensor.shape[0]
    return whole if stop - start == len(whole) else whole[start:stop]
