"""Classifiers of converters (scikit-learn, LightGBM, CatBoost) as graphs of plain tensors.

Their last node, ZipMap, makes a map of class to probability of each row, which no protocol can
carry. Its input is the tensor that a client wants, so the node becomes an Identity, and the output
a tensor. Field numbers are those of onnx.proto.
"""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trivet.backends.api.protobuf_file import (
    encode_varint,
    fields_of,
    messages_of,
    number_of,
    packed,
    spans,
    text_of,
    varint,
)

_DOMAIN = "ai.onnx.ml"
_CLASSIFIERS = ("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier")
_GRAPH, _OPSET = 7, 8
_NODE, _OUTPUT = 1, 12
_FLOAT = 1
_IDENTITY_OPSET = 8
"""For files that import no operators but those of classical machine learning; CatBoost's do so."""


@dataclass(frozen=True, slots=True)
class Maps:
    """What is to be changed in a graph."""

    classes: Mapping[str, tuple[str | int, ...]] = field(default_factory=dict)
    """By output that is a sequence of maps: its classes, in the order of the probabilities."""
    labels: frozenset[str] = frozenset()
    """Outputs that have one element a row and say, as LightGBM's converter does, one in all."""

    def __bool__(self) -> bool:
        return bool(self.classes or self.labels)


def find_maps(graph: memoryview) -> Maps:
    """Raises MalformedMessage."""
    outputs = {text_of(value, 1): value for value in messages_of(graph, _OUTPUT)}
    classes: dict[str, tuple[str | int, ...]] = {}
    is_classifier = False
    for node in messages_of(graph, _NODE):
        if text_of(node, 7) != _DOMAIN:
            continue
        name = text_of(node, 2)
        is_classifier |= text_of(node, 4) in _CLASSIFIERS
        if text_of(node, 4) == "ZipMap" and name in outputs:
            classes[name] = _classes(node)
    lone = {name for name, value in outputs.items() if _says_one_element(value)}
    return Maps(classes, frozenset(lone) if is_classifier else frozenset())


def without_maps(path: Path) -> bytes | None:
    """The model of plain tensors; None without maps. Raises MalformedMessage, OSError."""
    if not path.is_file() or not path.stat().st_size:
        return None
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    maps = next((find_maps(graph) for graph in messages_of(data, _GRAPH)), Maps())
    if not maps:
        return None
    parts: list[bytes | memoryview] = []
    has_opset = any(not text_of(opset, 1) for opset in messages_of(data, _OPSET))
    for each in spans(data):
        is_graph = each.number == _GRAPH and isinstance(each.value, memoryview)
        parts.append(packed(_GRAPH, _graph(each.value, maps)) if is_graph else each.encoded)
    if not has_opset:
        parts.append(packed(_OPSET, encode_varint(2 << 3) + encode_varint(_IDENTITY_OPSET)))
    return b"".join(parts)


def _graph(graph: object, maps: Maps) -> bytes:
    assert isinstance(graph, memoryview)
    parts: list[bytes | memoryview] = []
    for each in spans(graph):
        value = each.value
        parts.append(each.encoded)
        if not isinstance(value, memoryview):
            continue
        if (
            each.number == _NODE
            and text_of(value, 2) in maps.classes
            and text_of(value, 4) == "ZipMap"
        ):
            parts[-1] = packed(_NODE, _identity(value))
        elif each.number == _OUTPUT and text_of(value, 1) in maps.classes:
            name = text_of(value, 1)
            parts[-1] = packed(_OUTPUT, _tensor(name, _FLOAT, (None, len(maps.classes[name]))))
        elif each.number == _OUTPUT and text_of(value, 1) in maps.labels:
            parts[-1] = packed(_OUTPUT, _tensor(text_of(value, 1), _element(value), (None,)))
    return b"".join(parts)


def _identity(node: memoryview) -> bytes:
    """With the node's input and output, which other nodes know by name."""
    names = ((number, text_of(node, number)) for number in (1, 2, 3))
    kept = b"".join(packed(number, name.encode()) for number, name in names if name)
    return kept + packed(4, b"Identity")


def _tensor(name: str, element: int, shape: tuple[int | None, ...]) -> bytes:
    """A ValueInfo; None is any number of rows."""
    dims = b"".join(
        packed(1, b"" if size is None else encode_varint(1 << 3) + encode_varint(size))
        for size in shape
    )
    tensor = encode_varint(1 << 3) + encode_varint(element) + packed(2, dims)
    return packed(1, name.encode()) + packed(2, packed(1, tensor))


def _element(value: memoryview) -> int:
    for kind in messages_of(value, 2):
        for tensor in messages_of(kind, 1):
            return number_of(tensor, 1)
    return _FLOAT


def _says_one_element(value: memoryview) -> bool:
    for kind in messages_of(value, 2):
        for tensor in messages_of(kind, 1):
            for shape in messages_of(tensor, 2):
                return [number_of(size, 1) for size in messages_of(shape, 1)] == [1]
    return False


def _classes(node: memoryview) -> tuple[str | int, ...]:
    found: list[str | int] = []
    for attribute in messages_of(node, 5):
        for number, value in fields_of(attribute):
            if number == 9 and isinstance(value, memoryview):
                found.append(bytes(value).decode(errors="replace"))
            elif number == 8:
                found += [value] if isinstance(value, int) else _packed_numbers(value)
    return tuple(number if isinstance(number, str) else _signed(number) for number in found)


def _packed_numbers(content: memoryview) -> list[int]:
    found: list[int] = []
    position = 0
    while position < len(content):
        number, position = varint(content, position)
        found.append(number)
    return found


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number
