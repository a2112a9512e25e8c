"""Computes steps with a model on a device."""

from typing import Protocol

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.batch_state import StepArrays


class Model(Protocol):
    """A loaded model over its cache."""

    def forward(self, inputs: StepInputs) -> Tensor:
        """Logits, float32 [R, vocabulary], of `inputs.sample_rows`."""


class TorchRunner:
    """Owned by the engine's thread."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @torch.no_grad()  # inference mode would forbid the sampler to change the logits
    def run(self, arrays: StepArrays, rows: list[int]) -> Tensor:
        """Logits, float32 [len(rows), vocabulary], of the step's tokens at these places."""
        inputs = StepInputs(
            token_ids=torch.from_numpy(arrays.token_ids),
            positions=torch.from_numpy(arrays.positions),
            slot_mapping=torch.from_numpy(arrays.slot_mapping),
            query_starts=torch.from_numpy(arrays.query_starts),
            sequence_lengths=torch.from_numpy(arrays.sequence_lengths),
            block_tables=torch.from_numpy(arrays.block_tables),
            sample_rows=torch.tensor(rows, dtype=torch.int64),
        )
        return self._model.forward(inputs)
