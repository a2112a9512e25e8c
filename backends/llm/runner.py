"""Computes steps with a model on a device."""

from typing import Protocol

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.batch_state import StepArrays
from trivet.backends.llm.staging import HostStaging, Staging, step_inputs


class Model(Protocol):
    """A loaded model over its cache."""

    def forward(self, inputs: StepInputs) -> Tensor:
        """Logits, float32 [R, vocabulary], of `inputs.sample_rows`."""


class TorchRunner:
    """Owned by the engine's thread."""

    def __init__(self, model: Model, staging: Staging | None = None) -> None:
        self._model = model
        self._staging = staging or HostStaging()

    @torch.no_grad()  # inference mode would forbid the sampler to change the logits
    def run(self, arrays: StepArrays, rows: list[int]) -> Tensor:
        """Logits, float32 [len(rows), vocabulary] on the model's device, of the step's tokens at
        these places."""
        return self._model.forward(step_inputs(self._staging, arrays, rows))
