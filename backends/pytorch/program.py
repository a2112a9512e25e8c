"""What every kind of PyTorch model is to an instance: a callable on named tensors."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from trivet.backends.api.extent import Extents, check_shape

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
    extents: Mapping[str, Extents] = field(default_factory=dict)
    """By input: the sizes that its dimensions may have, where the file limits them."""

    def check(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Raises InvalidRequest for shapes that the file does not take. A batch's requests agree in
        all dimensions but the first, whose bound is `max_batch_size`: it is the fault of each."""
        for name, extents in self.extents.items():
            if name in tensors:
                check_shape(name, tuple(tensors[name].shape), extents)


def storages(tensors: Iterable[torch.Tensor]) -> frozenset[int]:
    """The addresses of the tensors' memory."""
    return frozenset(tensor.untyped_storage().data_ptr() for tensor in tensors)
