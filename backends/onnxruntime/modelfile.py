"""Reads an ONNX file's inputs, outputs and external data locations without loading the model.

Loading takes seconds and the model's memory; these facts are needed before it, and the locations
must be judged before ONNX Runtime follows them. The file is mapped and its weights are skipped.
Field numbers are those of onnx.proto.
"""

import mmap
from dataclasses import dataclass, field, replace
from pathlib import Path

from trivet.backends.api import DataType
from trivet.backends.api.completion import ModelTensor
from trivet.backends.onnxruntime.maps import Maps, find_maps
from trivet.backends.onnxruntime.protobuf import (
    MalformedModel,
    fields,
    messages,
    number_of,
    text,
)

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
    """Raises MalformedModel, or OSError when the file cannot be read."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise MalformedModel("the file is empty")
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    found = OnnxFile()
    graphs = list(messages(data, 7))
    if len(graphs) != 1:
        raise MalformedModel("the file has no graph")
    found.maps = find_maps(graphs[0])
    _read_signature(graphs[0], found)
    _read_graph_locations(graphs[0], found.external_locations, depth=0)
    for function in messages(data, 25):
        _read_nodes(function, 7, found.external_locations, depth=0)
    return found


def _read_signature(graph: memoryview, found: OnnxFile) -> None:
    initialised = {text(tensor, 8) for tensor in messages(graph, 5)}
    for value in messages(graph, 11):
        # An input with an initializer has a default: the caller may leave it out.
        _read_tensor(value, found.inputs, found.unsupported_inputs, initialised)
    for value in messages(graph, 12):
        name = text(value, 1)
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
    name = text(value, 1)
    for kind in messages(value, 2):
        for tensor in messages(kind, 1):
            datatype = _DATATYPES.get(number_of(tensor, 1))
            if datatype is not None:
                shapes = [_shape(shape) for shape in messages(tensor, 2)]
                shape = shapes[0] if shapes else None
                into.append(ModelTensor(name, datatype, shape, optional=name in initialised))
                return
    unsupported.append(name)


def _shape(shape: memoryview) -> tuple[int, ...]:
    return tuple(_dimension(dimension) for dimension in messages(shape, 1))


def _dimension(dimension: memoryview) -> int:
    """A symbolic, unknown or negative dimension is a variable one."""
    for number, value in fields(dimension):
        if number == 1 and isinstance(value, int):
            return value if value < 1 << 63 else -1
    return -1


def _read_graph_locations(graph: memoryview, locations: set[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise MalformedModel(f"graphs are nested more than {MAX_DEPTH} deep")
    for tensor in messages(graph, 5):
        _read_location(tensor, locations)
    for sparse in messages(graph, 15):
        _read_sparse_locations(sparse, locations)
    _read_nodes(graph, 1, locations, depth)


def _read_nodes(parent: memoryview, number: int, locations: set[str], depth: int) -> None:
    for node in messages(parent, number):
        for attribute in messages(node, 5):
            for number_in_attribute, value in fields(attribute):
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
        for tensor in messages(sparse, number):
            _read_location(tensor, locations)


def _read_location(tensor: memoryview, locations: set[str]) -> None:
    for entry in messages(tensor, 13):
        if text(entry, 1) == "location":
            locations.add(text(entry, 2))
