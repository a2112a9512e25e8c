"""Reads, and changes, fields of large protobuf files, which are mapped and not parsed whole.

Model files hold a few facts between gigabytes of weights, and their own classes come with their
framework. Field numbers are their readers' matter.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

Value = int | memoryview
_LENGTH_PREFIXED, _VARINT, _FIXED_BYTES = 2, 0, {1: 8, 5: 4}


class MalformedMessage(ValueError):
    """The bytes are no such message."""


class Span(NamedTuple):
    """A field of a message. A tuple: a file has millions of them."""

    number: int
    value: Value | None
    """None of one of fixed width."""
    encoded: memoryview
    """With its key."""


def map_file(path: Path) -> memoryview:
    """The file's bytes. Raises MalformedMessage for an empty one, or OSError."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise MalformedMessage("the file is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def text_of(message: memoryview, wanted: int) -> str:
    """The first text of a field; "" where there is none. Raises MalformedMessage."""
    for value in messages_of(message, wanted):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError as error:
            raise MalformedMessage("a name is not UTF-8") from error
    return ""


def number_of(message: memoryview, wanted: int) -> int:
    """The first number of a field; 0 where there is none."""
    for number, value in fields_of(message):
        if number == wanted and isinstance(value, int):
            return value
    return 0


def messages_of(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """All values of a field that holds messages, texts or bytes."""
    for number, value in fields_of(message):
        if number == wanted and not isinstance(value, int):
            yield value


def fields_of(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Field numbers and values of a protobuf message; fixed-width fields are skipped."""
    for field in spans(message):
        if field.value is not None:
            yield field.number, field.value


def spans(message: memoryview) -> Iterator[Span]:
    """All fields of a protobuf message, with their own bytes."""
    position, end = 0, len(message)
    while position < end:
        begin = position
        key, position = varint(message, position)
        value, position = varint(message, position) if key & 7 in (0, 2) else (0, position)
        if key & 7 == _VARINT:
            yield Span(key >> 3, value, message[begin:position])
            continue
        start = position
        position += value if key & 7 == _LENGTH_PREFIXED else _FIXED_BYTES.get(key & 7, end + 1)
        if position > end:
            raise MalformedMessage(f"a field at byte {start} is cut off or no protobuf")
        inner = message[start:position] if key & 7 == _LENGTH_PREFIXED else None
        yield Span(key >> 3, inner, message[begin:position])


def packed(number: int, content: bytes) -> bytes:
    """A length-prefixed field."""
    return encode_varint(number << 3 | _LENGTH_PREFIXED) + encode_varint(len(content)) + content


def encode_varint(value: int) -> bytes:
    """A number of zero or more."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def varint(message: memoryview, position: int) -> tuple[int, int]:
    """The number at `position` and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise MalformedMessage(f"a number at byte {position} is cut off or too long")
