"""Batches for the GPU paths of backends."""

import numpy as np

from trivet.backends.api import Batch, CheckedRequest, Residence, Tensor
from trivet.backends.api.value import changed


def batch_of(*inputs: dict[str, np.ndarray], residence: Residence = Residence.HOST) -> Batch:
    """One request of model m for each set of inputs; its outputs are wanted in `residence`."""
    requests = []
    for each in inputs:
        tensors = {name: Tensor.of(name, values) for name, values in each.items()}
        size = len(next(iter(each.values())))
        wanted = dict.fromkeys(("y", "sum", "difference"), residence)
        request = CheckedRequest("m", 1, "", tensors, batch_size=size, residence=wanted)
        requests.append(request)
    return Batch(requests, batching=True)


def given(batch: Batch, **tensors: Tensor) -> Batch:
    """A batch of its first request with these inputs instead, as they are."""
    inputs = {name: tensor.under(name) for name, tensor in tensors.items()}
    return Batch([changed(batch.requests[0], inputs=inputs)], batching=True)


def rows(count: int, first: float = 1) -> np.ndarray:
    """float32 [count, 4] of numbers that go up from `first`."""
    return np.arange(first, first + count * 4, dtype=np.float32).reshape(count, 4)
