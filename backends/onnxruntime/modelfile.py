"""Reads an ONNX file's inputs, outputs and external data locations without loading the model.

Loading takes seconds and the model's memory; these facts are needed before it, and the locations
must be judged before ONNX Runtime follows them. The file is mapped and its weights are skipped.
Field numbers are those of onnx.proto.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from trivet.backends.api import DataType
from trivet.backends.api.completion import ModelTensor
from trivet.backends.api.protobuf_file import (
    MalformedMessage,
    fields_of,
    map_file,
    messages_of,
    number_of,
    text_of,
)
from trivet.backends.onnxruntime.maps import Maps, find_maps

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


@dataclass(slots=True)
class OnnxFile:
    """What the file declares; unsupported are sequences, maps and types without a datatype."""

    inputs: list[ModelTensor] = field(default_factory=list)
    outputs: list[ModelTensor] = field(default_factory=list)
    unsupported_inputs: list[str] = field(default_factory=list)
    unsupported_outputs: list[str] = field(default_factory=list)
    external_locations: set[str] = field(default_factory=set)
    maps: Maps = field(default_factory=Maps)


def read_onnx_file(path: Path) -> OnnxFile:
    """Raises MalformedMessage, or OSError when the file cannot be read."""
    data = map_file(path)
    found = OnnxFile()
    graphs = list(messages_of(data, 7))
    if len(graphs) != 1:
        raise MalformedMessage("the file has no graph")
    found.maps = find_maps(graphs[0])
    _read_signature(graphs[0], found)
    _read_graph_locations(graphs[0], found.external_locations, depth=0)
    for function in messages_of(data, 25):
        _read_nodes(function, 7, found.external_locations, depth=0)
    return found


def _read_signature(graph: memoryview, found: OnnxFile) -> None:
    initialised = {text_of(tensor, 8) for tensor in messages_of(graph, 5)}
    for value in messages_of(graph, 11):
        # An input with an initializer has a default: the caller may leave it out.
        _read_tensor(value, found.inputs, found.unsupported_inputs, initialised)
    for value in messages_of(graph, 12):
        name = text_of(value, 1)
        if name in found.maps.classes:
            shape = (-1, len(found.maps.classes[name]))
            found.outputs.append(ModelTensor(name, DataType.FP32, shape))
        elif name in found.maps.labels:
            _read_tensor(value, found.outputs, found.unsupported_outputs, set())
            found.outputs[-1] = replace(found.outputs[-1], shape=(-1,))
        else:
            _read_tensor(value, found.outputs, found.unsupported_outputs, set())


def _read_tensor(
    value: memoryview, into: list[ModelTensor], unsupported: list[str], initialised: set[str]
) -> None:
    name = text_of(value, 1)
    for kind in messages_of(value, 2):
        for tensor in messages_of(kind, 1):
            datatype = _DATATYPES.get(number_of(tensor, 1))
            if datatype is not None:
                shapes = [_shape(shape) for shape in messages_of(tensor, 2)]
                shape = shapes[0] if shapes else None
                into.append(ModelTensor(name, datatype, shape, optional=name in initialised))
                return
    unsupported.append(name)


def _shape(shape: memoryview) -> tuple[int, ...]:
    return tuple(_dimension(dimension) for dimension in messages_of(shape, 1))


def _dimension(dimension: memoryview) -> int:
    """A symbolic, unknown or negative dimension is a variable one."""
    for number, value in fields_of(dimension):
        if number == 1 and isinstance(value, int):
            return value if value < 1 << 63 else -1
    return -1


def _read_graph_locations(graph: memoryview, locations: set[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise MalformedMessage(f"graphs are nested more than {MAX_DEPTH} deep")
    for tensor in messages_of(graph, 5):
        _read_location(tensor, locations)
    for sparse in messages_of(graph, 15):
        _read_sparse_locations(sparse, locations)
    _read_nodes(graph, 1, locations, depth)


def _read_nodes(parent: memoryview, number: int, locations: set[str], depth: int) -> None:
    for node in messages_of(parent, number):
        for attribute in messages_of(node, 5):
            for number_in_attribute, value in fields_of(attribute):
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
        for tensor in messages_of(sparse, number):
            _read_location(tensor, locations)


def _read_location(tensor: memoryview, locations: set[str]) -> None:
    for entry in messages_of(tensor, 13):
        if text_of(entry, 1) == "location":
            locations.add(text_of(entry, 2))
