"""Steps and adapters as frames from rank 0 to the others: a uint32 length and a msgpack list; never
code."""

import struct
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

import msgpack
import numpy as np
import orjson

from trivet.backends.llm.adapters.adapter import AdapterFiles
from trivet.backends.llm.sampling.draws import Draws
from trivet.backends.llm.scheduling.batch_state import StepArrays

_LENGTH = struct.Struct("<I")


class RankStep(NamedTuple):
    """What a rank is to do."""

    arrays: StepArrays | None
    """None: a piece of work for idle moments."""
    rows: list[int]
    draws: Draws | None
    """None: the step is run, not launched."""


class RankSlot(NamedTuple):
    """What is in a slot of adapters from now on."""

    slot: int
    files: AdapterFiles | None
    """None: nothing."""


def packed_slot(slot: int, files: AdapterFiles | None = None) -> bytes:
    """A RankSlot as a frame."""
    given = None if files is None else [orjson.dumps(files.document), files.weights]
    return _framed(msgpack.packb([slot, given]))


def _framed(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


def packed_step(
    arrays: StepArrays | None = None, rows: list[int] | None = None, draws: Draws | None = None
) -> bytes:
    """A RankStep as a frame."""
    given = [] if arrays is None else [getattr(arrays, each.name) for each in fields(arrays)]
    drawn = None if draws is None else [_packed(each) for each in draws.arrays]
    return _framed(msgpack.packb([[_packed_or_none(each) for each in given], rows or [], drawn]))


def unpacked(body: bytes) -> RankStep | RankSlot:
    """What a frame's body says."""
    given = msgpack.unpackb(body)
    return _slot(*given) if len(given) == len(RankSlot._fields) else _step(*given)


def _slot(slot: int, given: Any) -> RankSlot:
    if given is None:
        return RankSlot(slot, None)
    document, weights = given
    return RankSlot(slot, AdapterFiles(orjson.loads(document), weights))


def _step(packed: Any, rows: list[int], drawn: Any) -> RankStep:
    arrays = StepArrays(*map(_array_or_none, packed)) if packed else None
    draws = None
    if drawn is not None:
        state_rows, plain, likely, *wishes = map(_array, drawn)
        draws = Draws(state_rows, plain, likely, wishes)
    return RankStep(arrays, rows, draws)


def bodies(data: bytearray) -> Iterator[bytes]:
    """Takes the frames that are complete out of what has come."""
    while len(data) >= _LENGTH.size:
        end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
        if len(data) < end:
            return
        yield bytes(data[_LENGTH.size : end])
        del data[:end]


def _packed(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return array.dtype.str, array.shape, array.tobytes()


def _packed_or_none(array: np.ndarray | None) -> tuple[str, tuple[int, ...], bytes] | None:
    return None if array is None else _packed(array)


def _array_or_none(packed: Any) -> Any:
    return None if packed is None else _array(packed)


def _array(packed: Any) -> np.ndarray:
    dtype, shape, data = packed
    # A copy, for torch wants memory that may be written.
    return np.frombuffer(data, dtype=dtype).reshape(shape).copy()
