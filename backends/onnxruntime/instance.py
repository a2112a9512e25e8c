"""Runs batches through an ONNX Runtime session.

`InferenceSession.run` is the fastest way for tensors in host memory, measured on ONNX Runtime 1.32:
a small MLP takes 6.7 us, with io_binding 8.8 us, with OrtValues 41 us; outputs of 4 MB are not
copied either way. OrtValues are used for BF16 alone, which `run` cannot take.
"""

import ctypes
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from trivet.backends.api import Batch, ComputeOnly, DataType, Signature
from trivet.backends.api.texts import gather_text, to_bytes

_BFLOAT16 = 16  # TensorProto.BFLOAT16

Feeds = dict[str, np.ndarray]


class OnnxRuntimeInstance(ComputeOnly):
    """One instance; its session may be shared with others."""

    def __init__(
        self,
        session: ort.InferenceSession,
        signature: Signature,
        run_options: ort.RunOptions | None,
    ) -> None:
        self._session: ort.InferenceSession | None = session
        self._run_options = run_options
        self._inputs = signature.inputs
        self._output_names = list(signature.outputs)
        specs = (*signature.inputs.values(), *signature.outputs.values())
        self._has_bfloat16 = any(spec.datatype is DataType.BF16 for spec in specs)

    def execute(self, batch: Batch) -> None:
        assert self._session is not None, "executed after close"
        feeds = self._gather(batch)
        batch.mark_gathered()
        names = [name for name in self._output_names if batch.wants(name)]
        run = _run_ort_values if self._has_bfloat16 else _run
        values = run(self._session, names, feeds, self._run_options)
        batch.mark_computed()
        for name, value in zip(names, values, strict=True):
            batch.scatter(name, to_bytes(value) if value.dtype.kind in "OU" else value)

    def _gather(self, batch: Batch) -> Feeds:
        feeds: Feeds = {}
        for name, spec in self._inputs.items():
            is_text = spec.datatype is DataType.BYTES
            values = gather_text(batch, name, "ONNX Runtime") if is_text else batch.gather(name)
            if values is not None:
                feeds[name] = values
        return feeds

    def is_ready(self) -> bool:
        return self._session is not None

    def close(self) -> None:
        self._session = None


def _run(
    session: ort.InferenceSession,
    names: list[str],
    feeds: Feeds,
    run_options: ort.RunOptions | None,
) -> Sequence[np.ndarray]:
    # Scalars come back as numpy scalars from some versions.
    return [np.asarray(value) for value in session.run(names, feeds, run_options)]


def _run_ort_values(
    session: ort.InferenceSession,
    names: list[str],
    feeds: Feeds,
    run_options: ort.RunOptions | None,
) -> Sequence[np.ndarray]:
    values = {name: _to_ort_value(array) for name, array in feeds.items()}
    outputs = session.run_with_ort_values(names, values, run_options)
    return [_from_ort_value(output) for output in outputs]


def _to_ort_value(array: np.ndarray) -> ort.OrtValue:
    if array.dtype != DataType.BF16.dtype:
        return ort.OrtValue.ortvalue_from_numpy(array)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.int16), _BFLOAT16)


def _from_ort_value(value: ort.OrtValue) -> np.ndarray:
    if value.element_type() != _BFLOAT16:
        converted: np.ndarray = value.numpy()
        return converted
    # numpy cannot name the type, so the bytes are copied out of ONNX Runtime's memory.
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, DataType.BF16.dtype).reshape(tuple(value.shape()))
