"""Runs batches through an infer request of a compiled OpenVINO model."""

from collections.abc import Sequence

import numpy as np
import openvino as ov

from trivet.backends.api import Batch, ComputeOnly, DataType, Signature
from trivet.backends.api.texts import gather_text, to_bytes


class OpenVinoInstance(ComputeOnly):
    """One instance, with a compiled model and an infer request of its own."""

    def __init__(
        self,
        compiled: ov.CompiledModel,
        signature: Signature,
        inputs: Sequence[str],
        outputs: Sequence[str],
        fixed_rows: int = 0,
    ) -> None:
        """`inputs`, `outputs`: the names of the model's tensors, in its order; `fixed_rows`: how
        many rows it takes, neither more nor fewer, 0 for any number."""
        self._request: ov.InferRequest | None = compiled.create_infer_request()
        self._inputs = {name: inputs.index(name) for name in signature.inputs}
        self._outputs = {name: outputs.index(name) for name in signature.outputs}
        self._signature = signature
        self._fixed_rows = fixed_rows

    def execute(self, batch: Batch) -> None:
        assert self._request is not None, "executed after close"
        feeds = {}
        for name, place in self._inputs.items():
            values = self._gather(batch, name)
            if values is not None:
                feeds[place] = values
        batch.mark_gathered()
        # Inputs are read where they lie; outputs are copies, as the request uses its own again.
        results = self._request.infer(feeds, share_inputs=True, share_outputs=False)
        batch.mark_computed()
        for name, place in self._outputs.items():
            if batch.wants(name):
                values = results[place][: batch.size] if self._fixed_rows else results[place]
                batch.scatter(name, self._given(name, values))

    def _gather(self, batch: Batch, name: str) -> "np.ndarray | ov.Tensor | None":
        datatype = self._signature.inputs[name].datatype
        if datatype is DataType.BYTES:
            texts = gather_text(batch, name, "OpenVINO")
            return None if texts is None else self._padded(texts.astype(np.str_))
        values = batch.gather(name)
        if values is not None:
            values = self._padded(values)
        if values is None or datatype is not DataType.BF16:
            return values
        # numpy has no such type, and unshared arrays would be converted to half precision.
        return ov.Tensor(np.ascontiguousarray(values).view(np.uint16), values.shape, ov.Type.bf16)

    def _padded(self, values: np.ndarray) -> np.ndarray:
        """With its last row as often as it takes."""
        missing = self._fixed_rows - len(values) if self._fixed_rows else 0
        return np.concatenate([values, np.repeat(values[-1:], missing, 0)]) if missing else values

    def _given(self, name: str, values: np.ndarray) -> np.ndarray:
        datatype = self._signature.outputs[name].datatype
        if datatype is DataType.BYTES:
            return to_bytes(values)
        # The same the other way round: the bits are right, the type is numpy's nearest.
        return values.view(datatype.dtype) if datatype is DataType.BF16 else values

    def is_ready(self) -> bool:
        return self._request is not None

    def close(self) -> None:
        self._request = None
