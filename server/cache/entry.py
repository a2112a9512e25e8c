"""A cached answer, and its form in a store outside of the process."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from google.protobuf.message import DecodeError

from trivet.backends.api import DataType, PackedBytes, Parameters, Tensor
from trivet.backends.api.datatype import BY_NAME
from trivet.protos import grpc_service_pb2 as pb
from trivet.server.protocol.parameters import set_parameter


@dataclass(frozen=True, slots=True)
class Entry:
    """What a model answered to a request."""

    outputs: list[Tensor]
    parameters: Parameters

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.outputs)


Found = Callable[[Entry | None], None]
"""Called once with what a lookup has found."""


class Cache(Protocol):
    """Where answers are kept. Called on the event loop; never raises and never blocks it."""

    def find(self, key: bytes, found: Found) -> None:
        """Calls `found`, now or later."""

    def keep(self, key: bytes, entry: Entry) -> None:
        """Stores an answer, or not; what is in `entry` stays its owner's."""

    async def close(self) -> None:
        """Frees what it holds."""


def owned(entry: Entry) -> Entry:
    """A copy whose memory nobody else has and nobody can write to."""
    return Entry([_owned(tensor) for tensor in entry.outputs], dict(entry.parameters))


def _owned(tensor: Tensor) -> Tensor:
    if tensor.datatype is DataType.BYTES:
        packed = tensor.packed()
        copy = PackedBytes(memoryview(bytes(packed.blob)), packed.offsets)
        return Tensor(tensor.name, tensor.datatype, tensor.shape, copy)
    values = np.array(tensor.numpy())
    values.flags.writeable = False
    return Tensor(tensor.name, tensor.datatype, tensor.shape, values)


def encode(entry: Entry) -> bytes:
    """As a serialised ModelInferResponse."""
    message = pb.ModelInferResponse()
    for tensor in entry.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype.value, shape=tensor.shape)
        message.raw_output_contents.append(bytes(tensor.raw()))
    for name, value in entry.parameters.items():
        set_parameter(message.parameters[name], value)
    return message.SerializeToString()


def decode(data: bytes) -> Entry | None:
    """What `encode` made; None for anything else."""
    try:
        message = pb.ModelInferResponse.FromString(data)
        outputs = [
            Tensor.from_raw(each.name, BY_NAME[each.datatype], tuple(each.shape), raw)
            for each, raw in zip(message.outputs, message.raw_output_contents, strict=True)
        ]
    except (DecodeError, KeyError, ValueError):
        return None
    parameters = {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in message.parameters.items()
    }
    return Entry(outputs, parameters)
