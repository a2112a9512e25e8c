"""A stage of a model: computes with what the stage before gives, and hands on what it gives."""

from dataclasses import replace

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.device.group import Neighbours
from trivet.backends.llm.steps.runner import Model


class StagedModel:
    """A Model; that of the last stage gives logits. Owned by the thread that computes."""

    def __init__(self, model: Model, neighbours: Neighbours, like: Tensor) -> None:
        """`like`: of the type and on the device of states, [.., hidden]."""
        self._model = model
        self._neighbours = neighbours
        self._like = like

    def forward(self, inputs: StepInputs) -> Tensor:
        """See Model. All stages must compute the same steps."""
        stage = self._neighbours.stage
        if not stage.is_first:
            states = self._like.new_empty(len(inputs.token_ids), self._like.shape[-1])
            self._neighbours.receive(states)
            inputs = replace(inputs, states=states)
        given = self._model.forward(inputs)
        if not stage.is_last:
            self._neighbours.hand_on(given)
        return given


def no_states(hidden_size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Of no token: what states are like."""
    return torch.empty(0, hidden_size, dtype=dtype, device=device)
