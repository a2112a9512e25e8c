"""Reads what a SavedModel's saved_model.pb declares, without TensorFlow.

Importing that takes seconds and half a gigabyte; names, types and shapes of the tensors are needed
in the server, which computes nothing itself. Field numbers are those of saved_model.proto,
meta_graph.proto and types.proto.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trivet.backends.api import DataType, Shape
from trivet.backends.api.completion import ModelTensor
from trivet.backends.api.protobuf_file import (
    MalformedMessage,
    fields_of,
    map_file,
    messages_of,
    number_of,
    text_of,
)

INIT_SIGNATURE = "__saved_model_init_op"
"""Runs when the model is loaded; it is for no client."""

_DATATYPES = {
    1: DataType.FP32,
    2: DataType.FP64,
    3: DataType.INT32,
    4: DataType.UINT8,
    5: DataType.INT16,
    6: DataType.INT8,
    7: DataType.BYTES,
    9: DataType.INT64,
    10: DataType.BOOL,
    14: DataType.BF16,
    17: DataType.UINT16,
    19: DataType.FP16,
    22: DataType.UINT32,
    23: DataType.UINT64,
}


@dataclass(frozen=True, slots=True)
class Signature:
    """A function that the model offers: named tensors in, named tensors out."""

    inputs: tuple[ModelTensor, ...]
    outputs: tuple[ModelTensor, ...]
    unsupported: tuple[str, ...]
    """Tensors of types that no client can send: complex numbers, resources, sparse ones."""


@dataclass(frozen=True, slots=True)
class MetaGraph:
    """One graph of the file: most have one, tagged "serve"."""

    tags: tuple[str, ...]
    signatures: Mapping[str, Signature]


def read_saved_model(path: Path) -> list[MetaGraph]:
    """The graphs of a saved_model.pb. Raises MalformedMessage, or OSError."""
    graphs = [_meta_graph(message) for message in messages_of(map_file(path), 2)]
    if not graphs:
        raise MalformedMessage("the file has no graph")
    return graphs


def _meta_graph(message: memoryview) -> MetaGraph:
    tags = [bytes(tag).decode() for info in messages_of(message, 1) for tag in messages_of(info, 4)]
    entries = ((text_of(entry, 1), entry) for entry in messages_of(message, 5))
    signatures = {
        name: _signature(entry) for name, entry in sorted(entries) if name != INIT_SIGNATURE
    }
    return MetaGraph(tuple(tags), signatures)


def _signature(entry: memoryview) -> Signature:
    for message in messages_of(entry, 2):
        inputs, outputs = _tensors(message, 1), _tensors(message, 2)
        strange = [name for name, each in (inputs | outputs).items() if each is None]
        return Signature(
            tuple(filter(None, inputs.values())),
            tuple(filter(None, outputs.values())),
            tuple(strange),
        )
    return Signature((), (), ())


def _tensors(signature: memoryview, field: int) -> dict[str, ModelTensor | None]:
    """By name, in the order of names: the file's own is that of a hash table."""
    entries = {text_of(entry, 1): entry for entry in messages_of(signature, field)}
    return {name: _tensor(name, entries[name]) for name in sorted(entries)}


def _tensor(name: str, entry: memoryview) -> ModelTensor | None:
    """None for a type that has no datatype."""
    info = next(messages_of(entry, 2), memoryview(b""))
    datatype = _DATATYPES.get(number_of(info, 2))
    # A composite or sparse tensor has several names in the graph, and none in field 1.
    if datatype is None or not text_of(info, 1):
        return None
    return ModelTensor(name, datatype, next(_shapes(info), None))


def _shapes(info: memoryview) -> Iterator[Shape | None]:
    for shape in messages_of(info, 3):
        is_unknown = number_of(shape, 3) != 0
        yield None if is_unknown else tuple(_dimension(each) for each in messages_of(shape, 2))


def _dimension(dimension: memoryview) -> int:
    for number, value in fields_of(dimension):
        if number == 1 and isinstance(value, int):
            return value if value < 1 << 63 else -1
    return 0  # protobuf leaves out a zero
