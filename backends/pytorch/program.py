"""What every kind of PyTorch model is to an instance: a callable on named tensors."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

Call = Callable[[Mapping[str, torch.Tensor]], object]


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded model. `call` takes tensors by config name and returns whatever the model returns.

    `result_positions` gives each output's place in it. `owned` are the storages of weights and
    buffers: an output on one of them must be copied, since the next call may change it.
    """

    call: Call
    result_positions: Mapping[str, int]
    owned: frozenset[int]


def storages(tensors: Iterable[torch.Tensor]) -> frozenset[int]:
    """The addresses of the tensors' memory."""
    return frozenset(tensor.untyped_storage().data_ptr() for tensor in tensors)
