"""Reads an ONNX file's inputs, outputs and external data locations without loading the model.

Loading takes seconds and the model's memory; these facts are needed before it, and the locations
must be judged before ONNX Runtime follows them. The file is mapped and its weights are skipped.
Field numbers are those of onnx.proto.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trivet.backends.api import DataType
from trivet.backends.api.completion import ModelTensor

MAX_DEPTH = 32
"""Graphs nested in graphs (If, Loop, Scan); real models have two or three levels."""

_DATATYPES = {
    1: DataType.FP32,
    2: DataType.UINT8,
    3: DataType.INT8,
    4: DataType.UINT16,
    5: DataType.INT16,
    6: DataType.INT32,
    7: DataType.INT64,
    8: DataType.BYTES,
    9: DataType.BOOL,
    10: DataType.FP16,
    11: DataType.FP64,
    12: DataType.UINT32,
    13: DataType.UINT64,
    16: DataType.BF16,
}
"""TensorProto.DataType."""

_Value = int | memoryview
_LENGTH_PREFIXED, _VARINT, _FIXED_BYTES = 2, 0, {1: 8, 5: 4}


class MalformedModel(ValueError):
    """The bytes are no ONNX model."""


@dataclass(slots=True)
class OnnxFile:
    """What the file declares; unsupported are sequences, maps and types without a datatype."""

    inputs: list[ModelTensor] = field(default_factory=list)
    outputs: list[ModelTensor] = field(default_factory=list)
    unsupported_inputs: list[str] = field(default_factory=list)
    unsupported_outputs: list[str] = field(default_factory=list)
    external_locations: set[str] = field(default_factory=set)


def read_onnx_file(path: Path) -> OnnxFile:
    """Raises MalformedModel, or OSError when the file cannot be read."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise MalformedModel("the file is empty")
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    found = OnnxFile()
    graphs = list(_messages(data, 7))
    if len(graphs) != 1:
        raise MalformedModel("the file has no graph")
    _read_signature(graphs[0], found)
    _read_graph_locations(graphs[0], found.external_locations, depth=0)
    for function in _messages(data, 25):
        _read_nodes(function, 7, found.external_locations, depth=0)
    return found


def _read_signature(graph: memoryview, found: OnnxFile) -> None:
    initialised = {_text(tensor, 8) for tensor in _messages(graph, 5)}
    for value in _messages(graph, 11):
        # An input with an initializer has a default: the caller may leave it out.
        _read_tensor(value, found.inputs, found.unsupported_inputs, initialised)
    for value in _messages(graph, 12):
        _read_tensor(value, found.outputs, found.unsupported_outputs, set())


def _read_tensor(
    value: memoryview, into: list[ModelTensor], unsupported: list[str], initialised: set[str]
) -> None:
    name = _text(value, 1)
    for kind in _messages(value, 2):
        for tensor in _messages(kind, 1):
            datatype = _DATATYPES.get(_number(tensor, 1))
            if datatype is not None:
                shapes = [_shape(shape) for shape in _messages(tensor, 2)]
                shape = shapes[0] if shapes else None
                into.append(ModelTensor(name, datatype, shape, optional=name in initialised))
                return
    unsupported.append(name)


def _shape(shape: memoryview) -> tuple[int, ...]:
    return tuple(_dimension(dimension) for dimension in _messages(shape, 1))


def _dimension(dimension: memoryview) -> int:
    """A symbolic, unknown or negative dimension is a variable one."""
    for number, value in _fields(dimension):
        if number == 1 and isinstance(value, int):
            return value if value < 1 << 63 else -1
    return -1


def _read_graph_locations(graph: memoryview, locations: set[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise MalformedModel(f"graphs are nested more than {MAX_DEPTH} deep")
    for tensor in _messages(graph, 5):
        _read_location(tensor, locations)
    for sparse in _messages(graph, 15):
        _read_sparse_locations(sparse, locations)
    _read_nodes(graph, 1, locations, depth)


def _read_nodes(parent: memoryview, number: int, locations: set[str], depth: int) -> None:
    for node in _messages(parent, number):
        for attribute in _messages(node, 5):
            for number_in_attribute, value in _fields(attribute):
                if isinstance(value, int):
                    continue
                if number_in_attribute in (5, 10):
                    _read_location(value, locations)
                elif number_in_attribute in (22, 23):
                    _read_sparse_locations(value, locations)
                elif number_in_attribute in (6, 11):
                    _read_graph_locations(value, locations, depth + 1)


def _read_sparse_locations(sparse: memoryview, locations: set[str]) -> None:
    for number in (1, 2):
        for tensor in _messages(sparse, number):
            _read_location(tensor, locations)


def _read_location(tensor: memoryview, locations: set[str]) -> None:
    for entry in _messages(tensor, 13):
        if _text(entry, 1) == "location":
            locations.add(_text(entry, 2))


def _text(message: memoryview, wanted: int) -> str:
    for value in _messages(message, wanted):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError as error:
            raise MalformedModel("a name is not UTF-8") from error
    return ""


def _number(message: memoryview, wanted: int) -> int:
    for number, value in _fields(message):
        if number == wanted and isinstance(value, int):
            return value
    return 0


def _messages(message: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, value in _fields(message):
        if number == wanted and not isinstance(value, int):
            yield value


def _fields(message: memoryview) -> Iterator[tuple[int, _Value]]:
    """Field numbers and values of a protobuf message; fixed-width fields are skipped."""
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        value, position = _varint(message, position) if key & 7 in (0, 2) else (0, position)
        if key & 7 == _VARINT:
            yield key >> 3, value
            continue
        start = position
        position += value if key & 7 == _LENGTH_PREFIXED else _FIXED_BYTES.get(key & 7, end + 1)
        if position > end:
            raise MalformedModel(f"a field at byte {start} is cut off or no protobuf")
        if key & 7 == _LENGTH_PREFIXED:
            yield key >> 3, message[start:position]


def _varint(message: memoryview, position: int) -> tuple[int, int]:
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
    raise MalformedModel(f"a number at byte {position} is cut off or too long")
