"""Tiny OpenVINO models, made by its own operations."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as operations

Dims = Sequence[int | tuple[int, int]]


def weighted(dims: Dims = (-1, 4)) -> ov.Model:
    """y = relu(x w), with weights in the file."""
    x = _parameter("x", ov.Type.f32, dims)
    weights = np.arange(12, dtype=np.float32).reshape(4, 3) - 5
    y = operations.relu(operations.matmul(x, operations.constant(weights), False, False))
    y.output(0).set_names({"y"})
    return ov.Model([y], [x], "weighted")


def identity(kind: ov.Type, dims: Dims = (-1, 4)) -> ov.Model:
    """y = x."""
    x = _parameter("x", kind, dims)
    y = operations.result(x)
    return ov.Model([y], [x], "identity")


def flattening() -> ov.Model:
    """Gives one row, whatever the batch."""
    x = _parameter("x", ov.Type.f32, (1, 4))
    y = operations.reshape(x, operations.constant(np.array([1, -1])), False)
    y.output(0).set_names({"y"})
    return ov.Model([y], [x], "flattening")


def save_ir(path: Path, model: ov.Model | None = None) -> None:
    """Writes model.xml and model.bin."""
    ov.save_model(model or weighted(), path, compress_to_fp16=False)


def _parameter(name: str, kind: ov.Type, dims: Dims) -> ov.Node:
    sizes = [ov.Dimension(*size) if isinstance(size, tuple) else size for size in dims]
    parameter = operations.parameter(ov.PartialShape(sizes), kind, name=name)
    parameter.output(0).set_names({name})
    return parameter
