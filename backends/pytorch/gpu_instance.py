"""Runs batches through a PyTorch program on a GPU: tensors stay where they are.

PyTorch computes on the lane's stream, on inputs that it takes by DLPack; outputs keep PyTorch's
memory, which goes back to it behind all who read them. The host waits only where somebody wants
values there, or where the program itself asks for one (`.item()`, a branch on a tensor).
"""

from collections.abc import Mapping

import torch
from torch.utils.dlpack import from_dlpack

from trivet.backends.api import (
    BackendFailed,
    Batch,
    CopyKind,
    DeviceArray,
    DeviceFull,
    DeviceMemory,
    InvalidConfig,
    Signature,
)
from trivet.backends.device.buckets import Bucket, StaticRun, fitting
from trivet.backends.device.errors import lost
from trivet.backends.device.lane import Lane
from trivet.backends.pytorch.cuda import TorchGpu
from trivet.backends.pytorch.modes import modes
from trivet.backends.pytorch.names import pick
from trivet.backends.pytorch.parameters import PyTorchParameters
from trivet.backends.pytorch.program import Program
from trivet.backends.pytorch.tensors import DATATYPES

_FAULT: type[Exception] = getattr(torch, "AcceleratorError", torch.cuda.CudaError)
"""A fault of the GPU (torch < 2.8 has but the second); a lack of memory is none."""


class GpuPyTorchInstance:
    """One instance on one GPU."""

    def __init__(
        self,
        program: Program,
        signature: Signature,
        lane: Lane,
        gpu: TorchGpu,
        parameters: PyTorchParameters,
        buckets: list[Bucket],
    ) -> None:
        self._program: Program | None = program
        self._signature = signature
        self._lane = lane
        self._gpu = gpu
        self._parameters = parameters
        self._graphs = [self._capture(program, bucket) for bucket in buckets]

    def execute(self, batch: Batch) -> None:
        program = self._program
        assert program is not None, "executed after close"
        with self._lane.computing():
            try:
                self._run(program, batch)
            except torch.OutOfMemoryError as error:
                self._gpu.forget_unused()
                raise DeviceFull(
                    "the GPU had no memory left for this batch; lower max_batch_size or the number "
                    f"of instances: {str(error).splitlines()[0]}"
                ) from error
            except _FAULT as error:
                raise lost(f"PyTorch: {str(error).splitlines()[0]}") from error
        if self._parameters.clean_cache:
            self._gpu.forget_unused()

    def _run(self, program: Program, batch: Batch) -> None:
        arrays = self._lane.bring_all(batch, self._signature.inputs)
        batch.mark_gathered()
        graph = fitting(self._graphs, arrays)
        with self._gpu.on(self._lane.stream):
            if graph is not None:
                outputs = graph.run(self._lane, batch, arrays)
            else:
                outputs = self._called(program, batch, arrays)
        self._lane.hand_out(batch, outputs)

    def _called(
        self, program: Program, batch: Batch, arrays: Mapping[str, DeviceArray]
    ) -> dict[str, DeviceArray]:
        tensors = {name: from_dlpack(array) for name, array in arrays.items()}
        program.check(tensors)
        with modes(self._parameters):
            result = program.call(tensors)
        outputs: dict[str, DeviceArray] = {}
        for name in self._signature.outputs:
            if batch.wants(name):
                tensor = self._tensor(program, result, name)
                if tensor.untyped_storage().data_ptr() in program.owned:
                    # The next call may change it.
                    batch.copied(CopyKind.DEVICE, tensor.nbytes)
                    tensor = tensor.clone()
                outputs[name] = self._array(tensor, arrays)
        return outputs

    def _tensor(self, program: Program, result: object, name: str) -> torch.Tensor:
        tensor = pick(result, name, program.result_positions[name])
        if not isinstance(tensor, torch.Tensor):
            raise BackendFailed(
                f"the model returned a {type(tensor).__name__} for output '{name}', not a tensor"
            )
        expected = self._signature.outputs[name].datatype
        if DATATYPES.get(tensor.dtype) is not expected:
            raise BackendFailed(
                f"the model returned {tensor.dtype} for output '{name}', but its config says "
                f"{expected.config_name}"
            )
        return tensor.detach().contiguous()

    def _array(self, tensor: torch.Tensor, inputs: Mapping[str, DeviceArray]) -> DeviceArray:
        """The memory of a tensor, which goes back to PyTorch behind all who read it; an output on
        an input's memory shares that, with all who read it."""
        storage = tensor.untyped_storage().data_ptr()
        memory = next((a.memory for a in inputs.values() if a.address == storage), None)
        if memory is None:
            held = [tensor]
            memory = DeviceMemory(self._lane.gpu, self._lane.stream, held.clear)
        dtype = DATATYPES[tensor.dtype].dtype
        return DeviceArray(memory, tensor.data_ptr(), dtype, tuple(tensor.shape))

    def _capture(self, program: Program, bucket: Bucket) -> StaticRun:
        specs = self._signature.inputs
        inputs = {n: self._lane.empty(specs[n].datatype.dtype, s) for n, s in bucket.shapes.items()}
        with self._gpu.on(self._lane.stream):
            tensors = {name: from_dlpack(array).zero_() for name, array in inputs.items()}

        def call() -> object:
            with modes(self._parameters):
                return program.call(tensors)

        try:
            result, replay = self._gpu.capture(self._lane.stream, call)
        except (RuntimeError, _FAULT) as error:
            raise InvalidConfig(
                "optimization.cuda.graphs is set, but the program cannot be captured (it waits for "
                f"values, or its shapes depend on them): {str(error).splitlines()[0]}; leave it out"
            ) from error
        made = {name: self._tensor(program, result, name) for name in self._signature.outputs}
        outputs = {name: self._array(tensor, inputs) for name, tensor in made.items()}
        return StaticRun(bucket, inputs, outputs, lambda _: replay(), lambda: None)

    def is_ready(self) -> bool:
        return self._program is not None and not self._lane.is_lost

    def close(self) -> None:
        self._lane.close()
        self._graphs.clear()
        self._program = None
