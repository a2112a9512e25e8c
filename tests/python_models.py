"""Makers of Python models, their requests and a recording response sender."""

import textwrap
import threading
from pathlib import Path

import numpy as np
from patience import patience

from trivet.backends.api import (
    Batch,
    CheckedRequest,
    Instance,
    ModelFiles,
    Parameters,
    Placement,
    ServingError,
    Tensor,
)
from trivet.backends.python.backend import BACKEND
from trivet.protos import model_config_pb2 as pb

HEAD = """import json, os, threading, time
import numpy as np
import triton_python_backend_utils as pb_utils
"""


class Recorder:
    """A ResponseSender that keeps what it is given and says when the end has come."""

    def __init__(self) -> None:
        self.responses: list[dict[str, np.ndarray]] = []
        self.parameters: list[Parameters | None] = []
        self.error: ServingError | None = None
        self.num_ends = 0
        self._ended = threading.Event()

    def send(
        self, outputs: list[Tensor], *, final: bool = False, parameters: Parameters | None = None
    ) -> None:
        self.responses.append({tensor.name: tensor.numpy() for tensor in outputs})
        self.parameters.append(parameters)
        if final:
            self.finish()

    def finish(self) -> None:
        self.num_ends += 1
        self._ended.set()

    def fail(self, error: ServingError) -> None:
        if not self._ended.is_set():
            self.error = error
            self.finish()

    def await_end(self) -> "Recorder":
        assert self._ended.wait(patience())
        return self


class Maker:
    """Writes models and opens them; closes what it has opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: list[Instance] = []

    def files(self, source: str, name: str = "m") -> ModelFiles:
        version_dir = self._folder / name / "1"
        version_dir.mkdir(parents=True, exist_ok=True)
        (version_dir / "model.py").write_text(HEAD + textwrap.dedent(source))
        return ModelFiles(self._folder / name, 1)

    def open(self, source: str, config: pb.ModelConfig, isolation: str = "process") -> Instance:
        files = self.files(source, config.name)
        config.parameters["isolation"].string_value = isolation
        placement = Placement(f"{config.name}_0_0", "KIND_CPU", 0, 1)
        instance = BACKEND.open(BACKEND.complete(config, files), files, placement)
        self._opened.append(instance)
        return instance

    def close(self, instance: Instance | None = None) -> None:
        """Closes one of the instances now, or all that are left."""
        for each in [instance] if instance else list(self._opened):
            self._opened.remove(each)
            each.close()


def make_config(
    *tensors: str, decoupled: bool = False, max_batch_size: int = 0, name: str = "m"
) -> pb.ModelConfig:
    """A config with tensors like "IN:FP32" (input) and ">OUT:FP32" (output), of any length."""
    config = pb.ModelConfig(name=name, backend="python", max_batch_size=max_batch_size)
    config.model_transaction_policy.decoupled = decoupled
    for tensor in tensors:
        tensor_name, datatype = tensor.lstrip(">").split(":")
        kind = config.output if tensor.startswith(">") else config.input
        kind.add(name=tensor_name, data_type=pb.DataType.Value(f"TYPE_{datatype}"), dims=[-1])
    return config


def make_request(**arrays: np.ndarray) -> CheckedRequest:
    """A request with these inputs; others are as without a wish."""
    inputs = {name: Tensor.of(name, array) for name, array in arrays.items()}
    return CheckedRequest("m", 1, "r1", inputs)


def run(instance: Instance, *requests: CheckedRequest) -> Batch:
    """Has a batch of these requests computed."""
    batch = Batch(requests, batching=len(requests) > 1)
    instance.execute(batch)
    return batch


def run_decoupled(instance: Instance, *requests: CheckedRequest) -> list[Recorder]:
    """Has the requests of a decoupled model executed; their responses may still be coming."""
    recorders = [Recorder() for _ in requests]
    instance.execute(Batch(requests, batching=False, senders=recorders))
    return recorders


def outputs_of(batch: Batch, index: int = 0) -> dict[str, np.ndarray]:
    return {tensor.name: tensor.numpy() for tensor in batch.outputs[index]}
