"""Tensor values as JSON: numbers, booleans and strings in arrays, strictly by datatype."""

import json
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, chain
from math import prod
from operator import mul
from typing import Any

import numpy as np
import orjson

from trivet.backends.api import DataType, InvalidRequest, Shape, Tensor
from trivet.server.http.json_document import type_name

_BINARY_ONLY = frozenset({DataType.FP16, DataType.BF16})
_FLOATS = frozenset({DataType.FP32, DataType.FP64})
_BYTES = DataType.BYTES
"""A constant: looking up an enum's member costs as much as a call."""
_FEW = 64
_INTEGER_TYPES: frozenset[type] = frozenset({int})
_FLOAT_TYPES: frozenset[type] = frozenset({int, float})
# bool is a subclass of int; comparing types themselves keeps `true` out of the numbers.
_JSON_TYPES: dict[DataType, frozenset[type]] = {
    datatype: _FLOAT_TYPES if datatype in _FLOATS else _INTEGER_TYPES for datatype in DataType
} | {DataType.BYTES: frozenset({str}), DataType.BOOL: frozenset({bool})}


def to_tensor(name: str, datatype: DataType, shape: Shape, data: object) -> Tensor:
    """The tensor that JSON `data` holds: flat, or nested as the shape is. Raises InvalidRequest."""
    values, nesting = flatten(name, data)
    if len(values) != prod(shape):
        raise InvalidRequest(
            f"unable to parse 'data' of input '{name}': expected {prod(shape)} elements for shape "
            f"{list(shape)}, got {len(values)}"
        )
    if len(nesting) > 1 and not _is_coarser(nesting, shape):
        raise InvalidRequest(
            f"unable to parse 'data' of input '{name}': it is nested as {list(nesting)}, but the "
            f"shape is {list(shape)}"
        )
    return Tensor(name, datatype, shape, to_array(name, datatype, values).reshape(shape))


def few_floats(datatype: DataType, shape: Shape, values: list[Any]) -> np.ndarray | None:
    """An array of numbers, all of them int or float, and so few that Python packs them sooner than
    numpy is ready to; None where it is to be made, or refused, by `to_tensor`."""
    count = prod(shape)
    if datatype not in _FLOATS or len(values) != count or not 0 < count <= _FEW:
        return None
    try:
        return np.ndarray(shape, datatype.dtype, _packer(datatype, count).pack(*values))
    except (OverflowError, struct.error):
        return None


def flatten(name: str, data: object) -> tuple[list[object], Shape]:
    """All values in row-major order, and the lengths of the arrays that they were nested in."""
    if type(data) is not list:
        raise InvalidRequest(f"'data' of input '{name}' must be an array, not {type_name(data)}")
    nesting = [len(data)]
    while data and type(data[0]) is list:
        if set(map(type, data)) != {list} or len(set(map(len, data))) != 1:
            raise InvalidRequest(
                f"unable to parse 'data' of input '{name}': arrays of one level differ in length"
            )
        nesting.append(len(data[0]))
        data = list(chain.from_iterable(data))
    return data, tuple(nesting)


def to_array(name: str, datatype: DataType, values: list[object]) -> np.ndarray:
    """A flat array of a datatype. Raises InvalidRequest for a value of another type or range."""
    if datatype in _BINARY_ONLY:
        raise InvalidRequest(
            f"receiving {datatype.value} data via JSON is not supported. "
            f"Please use the binary data format for input {name}"
        )
    allowed = _JSON_TYPES[datatype]
    if not allowed.issuperset(map(type, values)):
        raise _wrong_type(name, datatype, values, allowed)
    if datatype is DataType.BYTES:
        return _strings(values)
    if datatype in _FLOATS:
        return _floats(name, datatype, values)
    try:
        return np.array(values, dtype=datatype.dtype)
    except OverflowError:
        raise _out_of_range(name, datatype, values) from None


def output_text(tensor: Tensor) -> bytes:
    """An output's values as a flat array of JSON. Raises InvalidRequest where JSON cannot hold
    them. NaN and infinities become the literals NaN, Infinity and -Infinity, as in Triton."""
    datatype = tensor.datatype
    if datatype in _BINARY_ONLY:
        _refuse_binary_only(tensor)
    values = tensor.numpy().reshape(-1)
    if datatype is _BYTES:
        return orjson.dumps([_text(tensor.name, value) for value in values])
    text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    # What is not finite became `null`; to look for that costs less than to ask numpy.
    if b"n" in text and datatype in _FLOATS:
        return json.dumps(_short_floats(values)).encode()
    return text


def output_scalar(tensor: Tensor) -> object:
    """The value of a one-element output, as `output_text` would give it in its list."""
    _refuse_binary_only(tensor)
    (value,) = tensor.numpy().reshape(-1)
    if tensor.datatype is DataType.BYTES:
        return _text(tensor.name, value)
    if tensor.datatype in _FLOATS and not np.isfinite(value):
        return orjson.Fragment(json.dumps(float(value)))
    return value


def _refuse_binary_only(tensor: Tensor) -> None:
    if tensor.datatype in _BINARY_ONLY:
        raise InvalidRequest(
            f"sending {tensor.datatype.value} data via JSON is not supported. "
            f"Please use the binary data format for output {tensor.name}"
        )


def _is_coarser(nesting: Shape, shape: Shape) -> bool:
    """Whether each array of `nesting` holds whole rows of `shape`: equal, or with neighbouring
    dimensions joined, or but for dimensions of 1."""
    return _row_sizes(nesting) <= _row_sizes(shape)


def _row_sizes(dims: Shape) -> set[int]:
    return {1, *accumulate(reversed(dims), mul)}


def _strings(values: Sequence[object]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = [str(value).encode() for value in values]
    return array


@lru_cache(maxsize=2 * _FEW)
def _packer(datatype: DataType, count: int) -> struct.Struct:
    return struct.Struct(f"<{count}{'f' if datatype is DataType.FP32 else 'd'}")


def _floats(name: str, datatype: DataType, values: list[Any]) -> np.ndarray:
    packed = few_floats(datatype, (len(values),), values)
    if packed is not None:
        return packed
    with np.errstate(over="ignore"):
        array = np.array(values, dtype=datatype.dtype)
    # JSON has no infinity of its own, so one can only have come from a value out of range.
    if not np.isfinite(array).all():
        raise _out_of_range(name, datatype, values)
    return array


def _wrong_type(
    name: str, datatype: DataType, values: list[object], allowed: frozenset[type]
) -> InvalidRequest:
    index = next(i for i, value in enumerate(values) if type(value) not in allowed)
    return InvalidRequest(
        f"unable to parse 'data' of input '{name}': element {index} is "
        f"{type_name(values[index])}, which is no {datatype.value}"
    )


def _out_of_range(name: str, datatype: DataType, values: list[Any]) -> InvalidRequest:
    is_float = datatype in _FLOATS
    limits: Any = np.finfo(datatype.dtype) if is_float else np.iinfo(datatype.dtype)
    low, high = (float(x) if is_float else int(x) for x in (limits.min, limits.max))
    index = next((i for i, value in enumerate(values) if not low <= value <= high), 0)
    return InvalidRequest(
        f"unable to parse 'data' of input '{name}': element {index} is {values[index]}, which is "
        f"out of range for {datatype.value} ({low} to {high})"
    )


def _text(name: str, value: bytes | str) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"output '{name}' holds bytes that are not UTF-8 text, which JSON cannot carry. "
            f"Please use the binary data format for output {name}"
        ) from None


def _short_floats(values: np.ndarray) -> list[float]:
    # Through text: 3.3 as FP32 is 3.299999952316284 as a Python float.
    return [float(str(value)) for value in values]
