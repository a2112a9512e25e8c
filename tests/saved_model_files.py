"""A saved_model.pb by hand, so that tests of what is read from it need no TensorFlow."""

from collections.abc import Mapping, Sequence

FLOAT, INT32, STRING, COMPLEX64 = 1, 3, 7, 8
Tensors = Mapping[str, tuple[int, Sequence[int] | None]]
"""Types and dimensions by name; None: of unknown rank."""


def saved_model(
    signatures: Mapping[str, tuple[Tensors, Tensors]], tags: Sequence[str] = ("serve",)
) -> bytes:
    """A file with one graph that has no operations. Join two for a file with two graphs."""
    info = b"".join(field(4, tag.encode()) for tag in tags)
    entries = b"".join(
        field(5, field(1, name.encode()) + field(2, _signature(*sides)))
        for name, sides in signatures.items()
    )
    return number(1, 1) + field(2, field(1, info) + entries)


def _signature(inputs: Tensors, outputs: Tensors) -> bytes:
    return b"".join(
        field(place, field(1, name.encode()) + field(2, _info(name, *each)))
        for place, tensors in ((1, inputs), (2, outputs))
        for name, each in tensors.items()
    )


def _info(name: str, kind: int, dims: Sequence[int] | None) -> bytes:
    shape = number(3, 1) if dims is None else b"".join(field(2, number(1, dim)) for dim in dims)
    return field(1, f"{name}:0".encode()) + number(2, kind) + field(3, shape)


def field(place: int, value: bytes) -> bytes:
    return _varint(place << 3 | 2) + _varint(len(value)) + value


def number(place: int, value: int) -> bytes:
    return _varint(place << 3) + _varint(value)


def _varint(value: int) -> bytes:
    rest = value & (1 << 64) - 1
    made = bytearray()
    while rest > 0x7F:
        made.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*made, rest])
