"""Runs batches through a PyTorch program on the CPU, or on devices that it chooses itself."""

import numpy as np
import torch

from trivet.backends.api import BackendFailed, Batch, CopyKind, Signature
from trivet.backends.pytorch.border import Border
from trivet.backends.pytorch.modes import modes
from trivet.backends.pytorch.names import pick
from trivet.backends.pytorch.parameters import PyTorchParameters
from trivet.backends.pytorch.program import Program


class PyTorchInstance:
    """One instance on one device; device None means where the program puts itself."""

    def __init__(
        self,
        program: Program,
        signature: Signature,
        device: torch.device | None,
        parameters: PyTorchParameters,
    ) -> None:
        self._program: Program | None = program
        self._signature = signature
        self._border = Border(device)
        self._parameters = parameters

    def execute(self, batch: Batch) -> None:
        assert self._program is not None, "executed after close"
        tensors = self._gather(batch)
        batch.mark_gathered()
        self._program.check(tensors)
        with modes(self._parameters):
            result = self._program.call(tensors)
        self._border.wait(batch)
        batch.mark_computed()
        for name in self._signature.outputs:
            if batch.wants(name):
                batch.scatter(name, self._output(batch, result, name))
        if self._parameters.clean_cache and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _gather(self, batch: Batch) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        for name in self._signature.inputs:
            values = batch.gather(name)
            if values is not None:
                tensors[name] = self._border.bring(batch, values)
        return tensors

    def _output(self, batch: Batch, result: object, name: str) -> np.ndarray:
        program = self._program
        assert program is not None, "executed after close"
        tensor = pick(result, name, program.result_positions[name])
        if not isinstance(tensor, torch.Tensor):
            raise BackendFailed(
                f"the model returned a {type(tensor).__name__} for output '{name}', not a tensor"
            )
        values = self._border.take(batch, tensor)
        expected = self._signature.outputs[name].datatype
        if values.dtype != expected.dtype:
            raise BackendFailed(
                f"the model returned {tensor.dtype} for output '{name}', but its config says "
                f"{expected.config_name}"
            )
        is_owned = tensor.untyped_storage().data_ptr() in program.owned
        if not is_owned or tensor.device.type != "cpu":
            return values
        batch.copied(CopyKind.HOST, values.nbytes)
        return values.copy()

    def is_ready(self) -> bool:
        return self._program is not None

    def close(self) -> None:
        self._program = None
