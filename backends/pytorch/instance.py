"""Runs batches through a PyTorch program on the CPU, or on devices that it chooses itself."""

import numpy as np
import torch

from trivet.backends.api import BackendFailed, Batch, CopyKind, DataType, Signature
from trivet.backends.api.texts import gather_text
from trivet.backends.pytorch.border import Border
from trivet.backends.pytorch.modes import modes
from trivet.backends.pytorch.names import pick
from trivet.backends.pytorch.parameters import PyTorchParameters
from trivet.backends.pytorch.program import Program, Value
from trivet.backends.pytorch.texts import text_rows


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

    def _gather(self, batch: Batch) -> dict[str, Value]:
        tensors: dict[str, Value] = {}
        for name, spec in self._signature.inputs.items():
            if spec.datatype is DataType.BYTES:
                texts = gather_text(batch, name, "PyTorch")
                if texts is not None:
                    tensors[name] = texts.ravel().tolist()
                continue
            values = batch.gather(name)
            if values is not None:
                tensors[name] = self._border.bring(batch, values)
        return tensors

    def _output(self, batch: Batch, result: object, name: str) -> np.ndarray:
        program = self._program
        assert program is not None, "executed after close"
        expected = self._signature.outputs[name]
        if expected.datatype is DataType.BYTES:
            is_lone = isinstance(result, list) and all(isinstance(each, str) for each in result)
            texts = result if is_lone else pick(result, name, program.result_positions[name])
            return text_rows(name, texts, expected.model_dims, batching=self._signature.batching)
        tensor = pick(result, name, program.result_positions[name])
        if not isinstance(tensor, torch.Tensor):
            raise BackendFailed(
                f"the model returned a {type(tensor).__name__} for output '{name}', not a tensor"
            )
        values = self._border.take(batch, tensor)
        if values.dtype != expected.datatype.dtype:
            raise BackendFailed(
                f"the model returned {tensor.dtype} for output '{name}', but its config says "
                f"{expected.datatype.config_name}"
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
