"""Batches for the GPU paths of backends."""

import numpy as np

from trivet.backends.api import Batch, InferRequest, Residence, Tensor


def batch_of(*inputs: dict[str, np.ndarray], residence: Residence = Residence.HOST) -> Batch:
    """One request of model m for each set of inputs; its outputs are wanted in `residence`."""
    requests = []
    for each in inputs:
        tensors = {name: Tensor.of(name, values) for name, values in each.items()}
        request = InferRequest("m", 1, "", tensors, batching=True)
        request.batch_size = len(next(iter(each.values())))
        request.residence = dict.fromkeys(("y", "sum", "difference"), residence)
        requests.append(request)
    return Batch(requests, batching=True)


def rows(count: int, first: float = 1) -> np.ndarray:
    """float32 [count, 4] of numbers that go up from `first`."""
    return np.arange(first, first + count * 4, dtype=np.float32).reshape(count, 4)
