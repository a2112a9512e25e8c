"""Ragged batches: requests of different lengths as one row of elements, and where each one is.

An input with `allow_ragged_batch` is put together flat, without padding. The model learns the
borders from `batch_input` tensors, which are made here for each batch; `batch_output` says which
outputs are in one row too and go back in the shapes of an input.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Self

import numpy as np

from trivet.backends.api import (
    BackendFailed,
    Batch,
    CheckedRequest,
    DataType,
    ResponseSender,
    Shape,
    Tensor,
)
from trivet.backends.api.copies import CopyKind
from trivet.protos.model_config_pb2 import BatchInput, ModelConfig

Shapes = Sequence[Shape]
"""Of one input, in the order of the batch's requests; with the batch dimension."""


def _counts(shapes: Shapes) -> np.ndarray:
    return np.array([prod(shape) for shape in shapes])


def _item_shapes(shapes: Shapes) -> np.ndarray:
    return np.array([shape[1:] for shape in shapes for _ in range(shape[0])])


VALUES: dict[int, Callable[[Shapes], np.ndarray]] = {
    BatchInput.BATCH_ELEMENT_COUNT: _counts,
    BatchInput.BATCH_ACCUMULATED_ELEMENT_COUNT: lambda shapes: _counts(shapes).cumsum(),
    BatchInput.BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO: lambda shapes: np.concatenate(
        ([0], _counts(shapes).cumsum())
    ),
    BatchInput.BATCH_MAX_ELEMENT_COUNT_AS_SHAPE: lambda shapes: np.zeros(_counts(shapes).max()),
    BatchInput.BATCH_ITEM_SHAPE: _item_shapes,
    BatchInput.BATCH_ITEM_SHAPE_FLATTEN: lambda shapes: _item_shapes(shapes).ravel(),
}
"""What each kind of batch input holds, by its number in the config."""


@dataclass(frozen=True, slots=True)
class _BatchInput:
    values: Callable[[Shapes], np.ndarray]
    source: str
    dtype: np.dtype[np.generic]


@dataclass(frozen=True, slots=True)
class _BatchOutput:
    source: str
    dims: Shape


@dataclass(frozen=True, slots=True)
class Ragged:
    """What the config of one model says about ragged batches."""

    inputs: frozenset[str]
    batch_inputs: Mapping[str, _BatchInput]
    batch_outputs: Mapping[str, _BatchOutput]

    @classmethod
    def from_config(cls, config: ModelConfig) -> Self | None:
        """Of a config that has been checked; None for a model without them."""
        made = cls(
            frozenset(tensor.name for tensor in config.input if tensor.allow_ragged_batch),
            {
                name: _BatchInput(
                    VALUES[given.kind],
                    given.source_input[0],
                    DataType.from_config(given.data_type).dtype,
                )
                for given in config.batch_input
                for name in given.target_name
            },
            {
                name: _BatchOutput(given.source_input[0], _dims_of(config, name))
                for given in config.batch_output
                for name in given.target_name
            },
        )
        return made if made.inputs or made.batch_inputs or made.batch_outputs else None

    def batch(
        self,
        requests: Sequence[CheckedRequest],
        *,
        batching: bool,
        senders: Sequence[ResponseSender] = (),
    ) -> Batch:
        """A batch that makes and takes apart the tensors named here."""
        return RaggedBatch(self, requests, batching=batching, senders=senders)


def _dims_of(config: ModelConfig, name: str) -> Shape:
    return next(tuple(output.dims) for output in config.output if output.name == name)


class RaggedBatch(Batch):
    """A batch in which some tensors are rows of elements; see Ragged."""

    __slots__ = ("_ragged",)

    is_plain = False

    def __init__(
        self,
        ragged: Ragged,
        requests: Sequence[CheckedRequest],
        *,
        batching: bool,
        senders: Sequence[ResponseSender] = (),
    ) -> None:
        super().__init__(requests, batching=batching, senders=senders)
        self._ragged = ragged

    def gather(self, name: str) -> np.ndarray | None:
        """See Batch; a ragged input is flat, a batch input is made."""
        batch_input = self._ragged.batch_inputs.get(name)
        if batch_input is not None:
            values = batch_input.values(self._shapes(batch_input.source))
            return values.astype(batch_input.dtype)
        if name not in self._ragged.inputs or name not in self.requests[0].inputs:
            return super().gather(name)
        rows = [request.inputs[name].numpy().ravel() for request in self.requests]
        if len(rows) == 1:
            return rows[0]
        joined = np.concatenate(rows)
        self.gathered_bytes += joined.nbytes
        return joined

    def scatter(self, name: str, values: np.ndarray) -> None:
        """See Batch; a batch output is one row, of which each request gets its input's share."""
        batch_output = self._ragged.batch_outputs.get(name)
        if batch_output is None:
            super().scatter(name, values)
            return
        if not values.flags.c_contiguous:
            self.copied(CopyKind.SCATTER, values.nbytes)
        row = values.ravel()
        shapes = [_filled(batch_output.dims, s) for s in self._shapes(batch_output.source)]
        needed = sum(map(prod, shapes))
        if row.size != needed:
            raise BackendFailed(
                f"output '{name}' has {row.size} elements, but the shapes of input "
                f"'{batch_output.source}' in this batch make {needed}"
            )
        start = 0
        for outputs, shape in zip(self.outputs, shapes, strict=True):
            stop = start + prod(shape)
            outputs.append(Tensor.of(name, row[start:stop].reshape(shape)))
            start = stop

    def _shapes(self, name: str) -> list[Shape]:
        return [request.inputs[name].shape for request in self.requests]


def _filled(dims: Shape, source: Shape) -> Shape:
    """An output's shape: the source's batch dimension, then dims with each -1 replaced by the
    source's size at the same place."""
    return (
        source[0],
        *(
            source[place] if dim == -1 and place < len(source) else dim
            for place, dim in enumerate(dims, 1)
        ),
    )
