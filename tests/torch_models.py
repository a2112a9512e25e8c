"""Tiny PyTorch models, the repository folder of one, and how a test runs it."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from google.protobuf import text_format

from trivet.backends.api import (
    Batch,
    CheckedRequest,
    Instance,
    ModelFiles,
    Placement,
    Tensor,
)
from trivet.backends.pytorch.backend import PyTorchBackend
from trivet.protos.model_config_pb2 import ModelConfig


class AddSub(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b, a - b


class Same(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class ByName(torch.nn.Module):
    def forward(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"twice": values["x"] * 2, "half": values["x"] / 2}


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor, factor: float = 3.0) -> torch.Tensor:
        return x * factor


class Counter(torch.nn.Module):
    """Returns a buffer that it changes with every call."""

    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += x.sum()
        return self.count


def io(role: str, *names: str, dims: str = "4", kind: str = "FP32") -> str:
    return "".join(
        f'{role} {{ name: "{name}" data_type: TYPE_{kind} dims: [{dims}] }}\n' for name in names
    )


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: {value!r} }} }}\n'


ADD_SUB_SOURCE = """
import torch

class AddSub(torch.nn.Module):
    def forward(self, a, b):
        return a + b, a - b
"""

ADD_SUB = io("input", "a", "b") + io("output", "OUTPUT__0", "OUTPUT__1")


@dataclass
class Home:
    """The folder of model 'm' and a backend of its own."""

    model_dir: Path
    backend: PyTorchBackend = field(default_factory=PyTorchBackend)

    @property
    def files(self) -> ModelFiles:
        return ModelFiles(self.model_dir, 1)

    def path(self, name: str) -> Path:
        self.files.version_dir.mkdir(parents=True, exist_ok=True)
        return self.files.version_dir / name

    def put_script(self, module: torch.nn.Module) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            script = torch.jit.script(module.eval())
            torch.jit.save(script, self.path("model.pt"))

    def put_traced(self, module: torch.nn.Module, *inputs: torch.Tensor) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            traced = torch.jit.trace(module.eval(), inputs)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, self.path("model.pt"))

    def put_exported(
        self, module: torch.nn.Module, *inputs: torch.Tensor, batch: bool = True
    ) -> None:
        dims = {0: torch.export.Dim.DYNAMIC}
        shapes = tuple(dims for _ in inputs) if batch else None
        exported = torch.export.export(module.eval(), inputs, dynamic_shapes=shapes)
        torch.export.save(exported, self.path("model.pt2"))

    def complete(self, text: str = "") -> ModelConfig:
        config = text_format.Parse(text, ModelConfig(name="m", backend="pytorch"))
        return self.backend.complete(config, self.files)

    def open(self, text: str = "") -> Instance:
        placement = Placement("m_0_0", "KIND_CPU", 0, 1)
        return self.backend.open(self.complete(text), self.files, placement)


def make_request(inputs: dict[str, np.ndarray], outputs: tuple[str, ...] = ()) -> CheckedRequest:
    tensors = {name: Tensor.of(name, array) for name, array in inputs.items()}
    first = next(iter(inputs.values()))
    return CheckedRequest("m", 1, "", tensors, outputs, batch_size=len(first) if first.ndim else 1)


def run_one(instance: Instance, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    batch = Batch([make_request(inputs)], batching=True)
    instance.execute(batch)
    return {tensor.name: tensor.numpy() for tensor in batch.outputs[0]}


ONES = np.ones((1, 4), np.float32)
