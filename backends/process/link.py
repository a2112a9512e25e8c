"""Messages with tensors between server and instance process.

Tensors lie in runs: the values of one input for all requests of a batch, one after the other, so
that the receiver can take each request's tensor or the whole batch as a view. A small message
carries them in its frame, a large one in shared memory; see `regions`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trivet.backends.api import DataType, Shape, Tensor
from trivet.backends.api.datatype import BY_NAME
from trivet.backends.process.channel import (
    MAX_PAYLOAD_BYTES,
    Channel,
    ChannelClosed,
    Frame,
    Header,
)
from trivet.backends.process.regions import RegionReader, RegionWriter

_ALIGNMENT_BYTES = 64
_MAX_TRIED_BYTES = 2048
_MAX_NEWS = 256
"""Regions in one notice, which must stay short enough to be sent whole or not at all."""


@dataclass(frozen=True, slots=True)
class Run:
    """Tensors of one name and datatype that lie next to each other in memory."""

    tensors: list[Tensor]
    whole: np.ndarray
    """All their bytes, as uint8."""


@dataclass(frozen=True, slots=True)
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
            payload = bytearray(size_bytes)
            _fill(np.frombuffer(payload, dtype=np.uint8), plan)
            self.channel.send(header, payload)
        return size_bytes

    def try_send(self, header: Header, runs: Sequence[Sequence[Tensor]]) -> bool:
        """Sends a short message unless that would block; whether it did."""
        payload, message = bytearray(), dict(header)
        if runs:
            plan, message["runs"], size_bytes = _lay_out(runs)
            if size_bytes > _MAX_TRIED_BYTES:
                return False
            payload = bytearray(size_bytes)
            _fill(np.frombuffer(payload, dtype=np.uint8), plan)
        if released := self._reader.take_released(_MAX_NEWS):
            message["released"] = released
        is_sent = self.channel.try_send(message, payload)
        if not is_sent:
            self._reader.put_back(released)
        return is_sent

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


Plan = list[tuple[int, memoryview]]
"""Where in the message which bytes go."""


def _lay_out(runs: Sequence[Sequence[Tensor]]) -> tuple[Plan, list[list[object]], int]:
    plan: Plan = []
    described: list[list[object]] = []
    offset = 0
    for tensors in runs:
        start = offset = -(-offset // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        shapes_and_sizes = []
        for tensor in tensors:
            raw = tensor.raw()
            plan.append((offset, raw))
            shapes_and_sizes.append((tensor.shape, len(raw)))
            offset += len(raw)
        described.append([tensors[0].name, tensors[0].datatype.value, start, shapes_and_sizes])
    return plan, described, offset


def _fill(target: np.ndarray, plan: Plan) -> None:
    for offset, raw in plan:
        # numpy lets other threads run while it copies, a memoryview does not.
        target[offset : offset + len(raw)] = np.frombuffer(raw, dtype=np.uint8)


def _read_run(described: list[Any], root: np.ndarray) -> Run:
    name, datatype_name, start, shapes_and_sizes = described
    datatype = BY_NAME[datatype_name]
    tensors, offset = [], start
    for shape, size_bytes in shapes_and_sizes:
        raw = root[offset : offset + size_bytes]
        tensors.append(_read_tensor(name, datatype, tuple(shape), raw))
        offset += size_bytes
    return Run(tensors, root[start:offset])


def _read_tensor(name: str, datatype: DataType, shape: Shape, raw: np.ndarray) -> Tensor:
    if datatype is DataType.BYTES:
        return Tensor.from_raw(name, datatype, shape, raw.data)
    return Tensor(name, datatype, shape, raw.view(datatype.dtype).reshape(shape))
