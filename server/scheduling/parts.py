"""A request of more rows than are computed at once: computed in parts, answered whole.

Runs on an instance's thread. A row's outputs must not depend on its company, as in every batch.
"""

import numpy as np

from trivet.backends.api import (
    Batch,
    Cancelled,
    CheckedRequest,
    Instance,
    ParameterValue,
    Tensor,
)
from trivet.backends.api.device_tensor import DeviceTensor
from trivet.backends.api.request import ON_HOST
from trivet.backends.api.value import changed
from trivet.server.scheduling.ticket import labelled


def execute_in_parts(instance: Instance, batch: Batch, num_rows: int) -> None:
    """Fills the batch, whose only request is larger than `num_rows`. Parts whose outputs cannot be
    put together, since their other dimensions differ, are computed again as one. Of parameters that
    several parts give, the last part's counts."""
    (request,) = batch.requests
    outputs: list[list[Tensor]] = []
    parameters: dict[str, ParameterValue] = {}
    for start in range(0, batch.size, num_rows):
        if request.cancel.cancelled:
            raise Cancelled(labelled(request, "request was cancelled while it was computed"))
        part = Batch([_rows(request, start, min(start + num_rows, batch.size))], batching=True)
        instance.execute(part)
        _add_counts(batch, part)
        if part.errors:
            batch.fail(0, part.errors[0])
            return
        outputs.append(part.outputs[0])
        parameters.update(part.parameters.get(0, {}))
    if not _fit(outputs):
        batch.num_tokens = None  # they are read once more, and count once
        instance.execute(batch)
        return
    if parameters:
        batch.parameters[0] = parameters
    for tensors in zip(*outputs, strict=True):
        joined = np.concatenate([tensor.numpy() for tensor in tensors])
        batch.gathered_bytes += joined.nbytes
        batch.outputs[0].append(Tensor.of(tensors[0].name, joined))


def _rows(request: CheckedRequest, start: int, stop: int) -> CheckedRequest:
    inputs = {name: _part(tensor, start, stop) for name, tensor in request.inputs.items()}
    return changed(request, inputs=inputs, batch_size=stop - start, residence=ON_HOST)


def _part(tensor: Tensor, start: int, stop: int) -> Tensor:
    if not tensor.is_on_host and tensor.device is not None:
        return DeviceTensor.on(tensor.name, tensor.device.rows(start, stop))
    return Tensor.of(tensor.name, tensor.numpy()[start:stop])


def _fit(outputs: list[list[Tensor]]) -> bool:
    """Whether all parts have the same outputs, alike but for the number of rows."""
    kinds = {tuple((each.name, each.shape[1:]) for each in part) for part in outputs}
    return len(kinds) == 1


def _add_counts(batch: Batch, part: Batch) -> None:
    batch.gathered_bytes += part.gathered_bytes
    for kind, size_bytes in part.copies.items():
        batch.copied(kind, size_bytes)
    batch.synchronisations += part.synchronisations
    for index, count in (part.num_tokens or {}).items():
        batch.read_tokens(index, count)
    batch.gathered_ns = batch.gathered_ns or part.gathered_ns
    batch.computed_ns = part.computed_ns
