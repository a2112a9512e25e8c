"""Runs batches through an ONNX Runtime session on a GPU: tensors stay where they are.

The session computes on the instance's stream (`user_compute_stream`), inputs are bound to their
addresses, outputs are allocated by ONNX Runtime on the device. ONNX Runtime then need not wait for
the device after a run: the lane does, once, where somebody wants values on the host.
"""

import re
from collections.abc import Mapping

import numpy as np
import onnxruntime as ort

from trivet.backends.api import Batch, DataType, DeviceArray, DeviceFull, DeviceMemory, Signature
from trivet.backends.device.buckets import Bucket, StaticRun, fitting
from trivet.backends.device.errors import STICKY, lost
from trivet.backends.device.lane import Lane
from trivet.backends.onnxruntime.sessions import ORT_ERRORS

_BFLOAT16 = 16  # TensorProto.BFLOAT16
_NO_WAIT = "disable_synchronize_execution_providers"
_GRAPH_ID = "gpu_graph_id"
_NO_GRAPH = "-1"
_CUDA_CODE = re.compile(r"CUDA (?:failure|error) (\d+)", re.IGNORECASE)
_DATATYPES = {
    "tensor(bool)": DataType.BOOL,
    "tensor(double)": DataType.FP64,
    "tensor(float)": DataType.FP32,
    "tensor(float16)": DataType.FP16,
    "tensor(bfloat16)": DataType.BF16,
    **{f"tensor({kind.lower()})": DataType[kind] for kind in (
        "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")},
}  # fmt: skip


class GpuOnnxInstance:
    """One instance on one GPU, with a session and a stream of its own."""

    def __init__(
        self,
        session: ort.InferenceSession,
        signature: Signature,
        lane: Lane,
        buckets: list[Bucket],
        run_options: ort.RunOptions | None = None,
        device_name: str = "cuda",
    ) -> None:
        self._session: ort.InferenceSession | None = session
        self._signature = signature
        self._lane = lane
        self._device_name = device_name
        self._options = run_options or ort.RunOptions()
        self._options.add_run_config_entry(_NO_WAIT, "1")
        if buckets:
            self._options.add_run_config_entry(_GRAPH_ID, _NO_GRAPH)
        self._graphs = [self._capture(number, bucket) for number, bucket in enumerate(buckets, 1)]

    def execute(self, batch: Batch) -> None:
        assert self._session is not None, "executed after close"
        with self._lane.computing():
            try:
                self._execute(batch)
            except ORT_ERRORS as error:
                raise _explained(error) from error

    def _execute(self, batch: Batch) -> None:
        arrays = self._lane.bring_all(batch, self._signature.inputs)
        batch.mark_gathered()
        graph = fitting(self._graphs, arrays)
        if graph is not None:
            outputs = graph.run(self._lane, batch, arrays)
        else:
            names = [name for name in self._signature.outputs if batch.wants(name)]
            outputs = self._run(names, arrays)
        self._lane.hand_out(batch, outputs)

    def _run(self, names: list[str], arrays: Mapping[str, DeviceArray]) -> dict[str, DeviceArray]:
        session = self._session
        assert session is not None, "checked by execute"
        binding = session.io_binding()
        self._bind(binding, arrays)
        for name in names:
            binding.bind_output(name, self._device_name, self._lane.gpu.number)
        session.run_with_iobinding(binding, self._options)
        values = zip(names, binding.get_outputs(), strict=True)
        return {name: self._array(value) for name, value in values}

    def _bind(self, binding: ort.IOBinding, arrays: Mapping[str, DeviceArray]) -> None:
        for name, array in arrays.items():
            place = (self._device_name, self._lane.gpu.number)
            binding.bind_input(name, *place, _element(array), array.shape, array.address)

    def _array(self, value: ort.OrtValue) -> DeviceArray:
        """The memory of an OrtValue, which goes back to ONNX Runtime behind all who read it."""
        held = [value]
        memory = DeviceMemory(self._lane.gpu, self._lane.stream, held.clear)
        dtype = _DATATYPES[value.data_type()].dtype
        return DeviceArray(memory, value.data_ptr(), dtype, tuple(value.shape()))

    def _capture(self, number: int, bucket: Bucket) -> StaticRun:
        """ONNX Runtime captures at the first run with a graph's number, and replays after."""
        session = self._session
        assert session is not None, "while it is being opened"
        specs = self._signature.inputs
        inputs = {n: self._lane.empty(specs[n].datatype.dtype, s) for n, s in bucket.shapes.items()}
        zeros = {name: np.zeros(array.shape, array.dtype) for name, array in inputs.items()}
        for name, array in inputs.items():
            self._lane.stream.copy(array.address, zeros[name].ctypes.data, array.nbytes)
        # Where outputs go must not change: their shapes are known once they have been computed.
        probed = self._run(list(self._signature.outputs), inputs)
        outputs = {n: self._lane.empty(a.dtype, a.shape) for n, a in probed.items()}
        binding = session.io_binding()
        self._bind(binding, inputs)
        for name, array in outputs.items():
            place = (self._device_name, self._lane.gpu.number)
            binding.bind_output(name, *place, _element(array), array.shape, array.address)
        options = ort.RunOptions()
        options.add_run_config_entry(_GRAPH_ID, str(number))
        options.add_run_config_entry(_NO_WAIT, "1")
        session.run_with_iobinding(binding, options)
        self._lane.wait()
        return StaticRun(
            bucket,
            inputs,
            outputs,
            lambda _: session.run_with_iobinding(binding, options),
            lambda: None,
        )

    def is_ready(self) -> bool:
        return self._session is not None and not self._lane.is_lost

    def close(self) -> None:
        self._lane.close()
        self._graphs.clear()
        self._session = None


def _element(array: DeviceArray) -> object:
    """How io-binding names a type: numpy's, but for BF16, which numpy lacks."""
    return _BFLOAT16 if array.dtype == DataType.BF16.dtype else array.dtype


def _explained(error: Exception) -> Exception:
    """ONNX Runtime's error, as what it means: it tells CUDA's code in its text."""
    text = str(error)
    if "out of memory" in text.lower() or "allocate memory" in text.lower():
        return DeviceFull(
            "the GPU had no memory left for this batch; lower max_batch_size or the number of "
            "instances, or raise the parameter gpu_mem_limit"
        )
    found = _CUDA_CODE.search(text)
    if found is not None and int(found[1]) in STICKY:
        return lost(f"ONNX Runtime: CUDA error {found[1]}")
    return error
