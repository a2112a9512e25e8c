"""Messages with tensors between server and instance process.

Tensors lie in runs: the values of one input for all requests of a batch, one after the other, so
that the receiver can take each request's tensor or the whole batch as a view. A small message
carries them in its frame, a large one in shared memory; see `regions`.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import field
from math import prod
from typing import Any

import numpy as np

from trivet.backends.api import DataType, PackedBytes, Shape, Tensor
from trivet.backends.api.datatype import BY_NAME
from trivet.backends.api.value import value
from trivet.backends.process.channel import (
    MAX_PAYLOAD_BYTES,
    Channel,
    ChannelClosed,
    Frame,
    Header,
)
from trivet.backends.process.regions import RegionReader, RegionWriter

_ALIGNMENT_BYTES = 64
_COPIED_BYTES = 4096
"""Up to here a copy costs less than a view."""
_MAX_NEWS = 256
"""Regions in one notice, which must stay short enough to be sent whole or not at all."""


@value
class Run:
    """Tensors of one name and datatype that lie next to each other in memory."""

    tensors: list[Tensor]
    root: np.ndarray
    """The bytes of the message's tensors, as uint8."""
    start: int
    stop: int

    @property
    def whole(self) -> np.ndarray:
        """All their bytes, as uint8."""
        return self.root[self.start : self.stop]


@value
class Message:
    """A received header and the runs that came with it."""

    header: Header
    runs: list[Run] = field(default_factory=list)


class Link:
    """A channel that carries tensors. Several links between two processes may share the regions."""

    def __init__(self, channel: Channel, writer: RegionWriter, reader: RegionReader) -> None:
        self.channel = channel
        self._writer = writer
        self._reader = reader

    def send(self, header: Header, runs: Sequence[Sequence[Tensor]] = ()) -> int:
        """Sends the message and returns how many bytes of tensors it copied."""
        self._add_news(header)
        if not runs:
            self.channel.send(header)
            return 0
        plan, header["runs"], size_bytes = _lay_out(runs)
        if size_bytes > MAX_PAYLOAD_BYTES:
            self._send_shared(header, plan, size_bytes)
        else:
            self.channel.send(header, _joined(plan))
        return size_bytes

    def try_send(self, header: Header, runs: Sequence[Sequence[Tensor]] = ()) -> int | None:
        """Sends a short message (see `may_be_short`), unless that would block, and returns how many
        bytes of tensors it copied; None where it did not."""
        payload, message, size_bytes = b"", dict(header), 0
        if runs:
            plan, message["runs"], size_bytes = _lay_out(runs)
            if size_bytes > MAX_PAYLOAD_BYTES:
                return None
            payload = _joined(plan)
        if released := self._reader.take_released(_MAX_NEWS):
            message["released"] = released
        if self.channel.try_send(message, payload):
            return size_bytes
        self._reader.put_back(released)
        return None

    def send_news(self) -> None:
        """Tells the other end which regions are free again, unless it is too busy to listen."""
        released = self._reader.take_released(_MAX_NEWS)
        if released and not self.channel.try_send({"op": "news", "released": released}):
            self._reader.put_back(released)

    def receive(self) -> Message:
        """The next message; raises as `Channel.receive` does."""
        return self.open(self.channel.receive())

    def open(self, frame: Frame) -> Message:
        """The tensors of a frame of this channel. Raises ChannelClosed when it does not add up."""
        try:
            return self._open(frame)
        except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
            raise ChannelClosed(f"a message does not add up: {error!r}") from error

    def _open(self, frame: Frame) -> Message:
        header = frame.header
        if released := header.get("released"):
            self._writer.give_back(released)
        if dropped := header.get("dropped"):
            self._reader.drop(dropped)
        described = header.get("runs")
        if described is None:
            return Message(header)
        root = self._root(frame)
        return Message(header, [_read_run(run, root) for run in described])

    def _add_news(self, header: Header) -> None:
        if released := self._reader.take_released():
            header["released"] = released
        if dropped := self._writer.take_dropped():
            header["dropped"] = dropped

    def _send_shared(self, header: Header, plan: "Plan", size_bytes: int) -> None:
        region, fd = self._writer.take(size_bytes)
        try:
            _fill(region.bytes(size_bytes), plan)
            header["region"] = [region.id, size_bytes, fd is not None]
            self.channel.send(header, fd=fd)
        except (TypeError, ValueError):
            self._writer.take_back(region, is_new=fd is not None)
            raise
        finally:
            if fd is not None:
                os.close(fd)

    def _root(self, frame: Frame) -> np.ndarray:
        region = frame.header.get("region")
        if region is None:
            # A copy: models may write into their inputs, and the frame's bytes are constant.
            return np.frombuffer(bytearray(frame.payload), dtype=np.uint8)
        region_id, size_bytes, is_new = region
        if is_new:
            self._reader.map(region_id, self.channel.take_fd())
        return self._reader.lease(region_id, size_bytes)


def may_be_short(runs: Iterable[Iterable[Tensor]]) -> bool:
    """Whether to try: before texts are packed, or values fetched from a device."""
    size_bytes = 0
    for tensors in runs:
        for tensor in tensors:
            if not tensor.is_on_host:
                return False
            data = tensor.data
            size_bytes += len(data.blob) if isinstance(data, PackedBytes) else data.nbytes
    return size_bytes <= MAX_PAYLOAD_BYTES


Plan = list[tuple[int, memoryview | bytes]]
"""Where in the message which bytes go."""


def _lay_out(runs: Sequence[Sequence[Tensor]]) -> tuple[Plan, list[list[object]], int]:
    """Of each run are told its name, datatype and beginning, and the tensors' shapes and sizes: of
    several that are alike, once, and how many there are."""
    plan: Plan = []
    described: list[list[object]] = []
    offset = 0
    for tensors in runs:
        start = offset = -(-offset // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        first, sizes = tensors[0], []
        are_alike = True
        for tensor in tensors:
            raw = tensor.small_raw(_COPIED_BYTES)
            plan.append((offset, raw))
            sizes.append(len(raw))
            offset += len(raw)
            are_alike = are_alike and tensor.shape == first.shape
        head = [first.name, first.datatype.value, start]
        if are_alike and offset > start and first.datatype is not DataType.BYTES:
            described.append([*head, offset, len(tensors), first.shape])
        else:
            shapes = (tensor.shape for tensor in tensors)
            described.append([*head, offset, list(zip(shapes, sizes, strict=True))])
    return plan, described, offset


def _joined(plan: Plan) -> bytes:
    parts: list[memoryview | bytes] = []
    position = 0
    for offset, raw in plan:
        if offset > position:
            parts.append(bytes(offset - position))
        parts.append(raw)
        position = offset + len(raw)
    return b"".join(parts)


def _fill(target: np.ndarray, plan: Plan) -> None:
    for offset, raw in plan:
        # numpy lets other threads run while it copies, a memoryview does not.
        target[offset : offset + len(raw)] = np.frombuffer(raw, dtype=np.uint8)


def _read_run(described: list[Any], root: np.ndarray) -> Run:
    name, datatype_name, start, stop, *rest = described
    datatype = BY_NAME[datatype_name]
    if len(rest) == 2:
        count, shape = rest[0], tuple(rest[1])
        size_bytes = prod(shape) * datatype.size
        if size_bytes <= 0 or count * size_bytes != stop - start:
            raise ValueError(f"{count} tensors of {size_bytes} bytes in {stop - start}")
        arrays = _arrays(root, datatype, start, count, shape)
        return Run([Tensor(name, datatype, shape, each) for each in arrays], root, start, stop)
    tensors, offset = [], start
    for shape, size_bytes in rest[0]:
        raw = root[offset : offset + size_bytes]
        tensors.append(Tensor.from_raw(name, datatype, tuple(shape), raw.data))
        offset += size_bytes
    return Run(tensors, root, start, stop)


def _arrays(
    root: np.ndarray, datatype: DataType, start: int, count: int, shape: Shape
) -> Iterable[np.ndarray]:
    """Some of one shape that lie one after another."""
    dtype, size = datatype.dtype, datatype.size
    if count > 1 and shape:
        return np.ndarray((count, *shape), dtype, root, start)
    return [np.ndarray(shape, dtype, root, start + index * size) for index in range(count)]
