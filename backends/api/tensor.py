"""The tensor handle that travels through the house: a name, a type, a shape and somebody's memory.

No step copies it. Numeric data is a numpy view on the buffer it came in (a request body, a shared
memory region, a model's output); BYTES stays packed, as it is on the wire, until a model asks for
Python objects.
"""

import struct
from math import prod

import numpy as np

from trivet.backends.api.datatype import DataType

Shape = tuple[int, ...]
_LENGTH = struct.Struct("<I")


class PackedBytes:
    """BYTES elements in wire form: for each a uint32 little-endian length, then its bytes.

    `blob` keeps its owner alive; `offsets[i]` is where element i's length prefix starts and
    `offsets[n]` is the end.
    """

    __slots__ = ("blob", "offsets")

    def __init__(self, blob: memoryview, offsets: list[int]) -> None:
        self.blob = blob
        self.offsets = offsets

    @classmethod
    def parse(cls, blob: memoryview) -> "PackedBytes":
        """Finds the elements; raises ValueError where a length is cut off or goes past the end."""
        offsets, position, end = [0], 0, len(blob)
        while position < end:
            if end - position < 4:
                raise ValueError(
                    f"incomplete string length indicator at byte {position}: "
                    f"expecting 4 bytes, got {end - position}"
                )
            (length,) = _LENGTH.unpack_from(blob, position)
            position += 4 + length
            if position > end:
                raise ValueError(
                    f"incomplete string data at byte {offsets[-1]}: expecting string of length "
                    f"{length} but only {end - offsets[-1] - 4} bytes available"
                )
            offsets.append(position)
        return cls(blob, offsets)

    @classmethod
    def pack(cls, values: np.ndarray) -> "PackedBytes":
        """Wire form of an array of bytes or str objects (str as UTF-8), in row-major order."""
        parts: list[bytes] = []
        offsets, position = [0], 0
        for value in values.ravel():
            element = value.encode() if isinstance(value, str) else bytes(value)
            parts += (_LENGTH.pack(len(element)), element)
            position += 4 + len(element)
            offsets.append(position)
        return cls(memoryview(b"".join(parts)), offsets)

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


class Tensor:
    """A named array of one datatype. Treat it as immutable: others may hold the same memory.

    `data` is a C-contiguous numpy array of `shape` for numbers (dtype exactly `datatype.dtype`),
    and for BYTES either an object array of `shape` (bytes or str elements) or a PackedBytes.
    """

    __slots__ = ("data", "datatype", "name", "shape")

    def __init__(
        self, name: str, datatype: DataType, shape: Shape, data: np.ndarray | PackedBytes
    ) -> None:
        self.name = name
        self.datatype = datatype
        self.shape = shape
        self.data = data

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
        if datatype is not DataType.BYTES:
            # reshape is skipped for the common flat case: it costs as much as frombuffer.
            array = np.frombuffer(raw, dtype=datatype.dtype)
            return cls(
                name, datatype, shape, array if array.shape == shape else array.reshape(shape)
            )
        packed = PackedBytes.parse(memoryview(raw))
        if len(packed) != prod(shape):
            raise ValueError(f"expected {prod(shape)} string elements, got {len(packed)}")
        return cls(name, datatype, shape, packed)

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

    @property
    def nbytes(self) -> int:
        """Bytes in wire form, without packing anything."""
        if isinstance(self.data, PackedBytes):
            return len(self.data.blob)
        if self.datatype is not DataType.BYTES:
            return int(self.data.nbytes)
        return sum(4 + len(v.encode() if isinstance(v, str) else v) for v in self.data.ravel())

    def renamed(self, name: str, shape: Shape) -> "Tensor":
        """The same memory under another name and a shape of as many elements."""
        data = self.data if isinstance(self.data, PackedBytes) else self.data.reshape(shape)
        return Tensor(name, self.datatype, shape, data)

    def __repr__(self) -> str:
        return f"Tensor({self.name!r}, {self.datatype.value}, {list(self.shape)})"
