"""Just enough of the protobuf wire format to keep tensors out of the protobuf library.

The library copies a bytes field on parse, again on each read, and is slow to serialise large
ones. So a ModelInferRequest is split here into its small part, which the library parses (once per
distinct content, see `codec.py`), and views on its `raw_input_contents`; a response is put together
likewise.
Format: https://protobuf.dev/programming-guides/encoding/
"""

from typing import NamedTuple

Buffer = bytes | bytearray | memoryview

ID_TAG = 0x1A  # field 3, length-delimited: `id` of ModelInferRequest and ModelInferResponse
PARAMETER_TAG = 0x22  # field 4, length-delimited: an entry of `parameters` of ModelInferRequest
SEQUENCE_ID_KEY = b"\x0a\x0bsequence_id"  # how an entry of that key begins
RAW_INPUT_TAG = 0x3A  # field 7, length-delimited: `raw_input_contents` of ModelInferRequest
RAW_OUTPUT_TAG = b"\x32"  # field 6, length-delimited: `raw_output_contents` of ModelInferResponse
LENGTH_DELIMITED = 2
ONE_BYTE_KIND = 0x87
"""Bits of a first byte that are LENGTH_DELIMITED in a tag of one byte and that kind."""
MAX_FIELDS = 4096
"""Inputs, outputs, parameters and their data, in one request. A field may take two bytes of a
message and fifty times that in memory."""
_FIXED_SIZES = {1: 8, 5: 4}


class Split(NamedTuple):
    """The parts of a ModelInferRequest."""

    header: bytes
    """The serialised message without `id`, `sequence_id` and `raw_input_contents`, which differ
    from call to call."""
    id: bytes
    raw: list[memoryview]
    """Views on the message, one per `raw_input_contents` entry."""
    sequence_id: bytes | None = None
    """The entry of `parameters` with that key, serialised."""


def split_infer_request(message: Buffer) -> Split:
    """Splits a serialised ModelInferRequest. Raises ValueError when it is malformed."""
    view = memoryview(message)
    end = len(view)
    header: list[memoryview] = []
    raw: list[memoryview] = []
    request_id = b""
    sequence_id = None
    position = kept_from = num_fields = 0
    while position < end:
        num_fields += 1
        if num_fields > MAX_FIELDS:
            raise ValueError(f"it has more than {MAX_FIELDS} fields")
        start = position
        tag = view[start]
        if tag & ONE_BYTE_KIND != LENGTH_DELIMITED:
            position = _skip_field(view, start, end)
            continue
        # One-byte lengths are read here: a call costs as much as all the rest of the field.
        size = view[start + 1] if start + 1 < end else 0x80
        value = start + 2
        if size >= 0x80:
            size, value = read_varint(view, start + 1)
        position = value + size
        if position > end:
            raise ValueError("a field goes past the end of the message")
        if tag == RAW_INPUT_TAG:
            raw.append(view[value:position])
        elif tag == ID_TAG:
            request_id = bytes(view[value:position])
        # The head of a short entry: longer ones are no sequence id, whatever they begin with.
        elif tag == PARAMETER_TAG and view[start + 2 : start + 15] == SEQUENCE_ID_KEY:
            sequence_id = bytes(view[start + 2 : position])
        else:
            continue
        if start > kept_from:
            header.append(view[kept_from:start])
        kept_from = position
    if kept_from < end:
        header.append(view[kept_from:end])
    return Split(b"".join(header), request_id, raw, sequence_id)


def _skip_field(view: memoryview, position: int, end: int) -> int:
    """Where the field that begins at `position` ends."""
    tag, position = read_varint(view, position)
    kind = tag & 7
    if kind == 2:
        size, position = read_varint(view, position)
        position += size
    elif kind == 0:
        _, position = read_varint(view, position)
    elif kind in _FIXED_SIZES:
        position += _FIXED_SIZES[kind]
    else:
        raise ValueError(f"unknown wire type {kind}")
    if position > end:
        raise ValueError("a field goes past the end of the message")
    return position


def read_varint(view: memoryview, position: int) -> tuple[int, int]:
    """The value of a varint and where it ends. Raises ValueError when cut off or over 64 bits."""
    value = shift = 0
    while position < len(view) and shift < 70:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a varint is cut off or longer than 10 bytes")


def varint(value: int) -> bytes:
    """A non-negative value as a varint."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field_head(tag: bytes, size: int) -> bytes:
    """What precedes the bytes of a length-delimited field."""
    return tag + (_SMALL_SIZES[size] if size < 0x80 else varint(size))


_SMALL_SIZES = [bytes([size]) for size in range(0x80)]
