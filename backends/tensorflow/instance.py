"""Runs batches through a function of TensorFlow tensors."""

import numpy as np
import tensorflow as tf

from trivet.backends.api import BackendFailed, Batch, ComputeOnly, Signature
from trivet.backends.tensorflow.runtime import Function


class TensorFlowInstance(ComputeOnly):
    """One instance: a SavedModel's signature, or a Keras model."""

    def __init__(self, function: Function, signature: Signature) -> None:
        self._function: Function | None = function
        self._signature = signature

    def execute(self, batch: Batch) -> None:
        assert self._function is not None, "executed after close"
        gathered = {name: batch.gather(name) for name in self._signature.inputs}
        batch.mark_gathered()
        outputs = self._function(
            {name: tf.constant(values) for name, values in gathered.items() if values is not None}
        )
        names = [name for name in self._signature.outputs if batch.wants(name)]
        values = {name: _array(outputs[name]) for name in names}
        batch.mark_computed()
        for name in names:
            batch.scatter(name, self._checked(name, values[name]))

    def _checked(self, name: str, values: np.ndarray) -> np.ndarray:
        expected = self._signature.outputs[name].datatype
        if values.dtype != expected.dtype:
            raise BackendFailed(
                f"the model returned {values.dtype} for output '{name}', but its config says "
                f"{expected.config_name}"
            )
        return values

    def is_ready(self) -> bool:
        return self._function is not None

    def close(self) -> None:
        self._function = None


def _array(tensor: tf.Tensor) -> np.ndarray:
    values = tensor.numpy()
    if isinstance(values, np.ndarray):
        return values
    # A scalar; numpy would take a text's last zeros for padding.
    return np.array(values, object if isinstance(values, bytes) else None)
