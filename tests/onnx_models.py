"""Tiny ONNX models, the repository folder of one, and how a test runs it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from google.protobuf import text_format
from onnx import TensorProto, helper

from trivet.backends.api import (
    Batch,
    CheckedRequest,
    Instance,
    ModelFiles,
    Placement,
    Tensor,
)
from trivet.backends.onnxruntime.backend import OnnxRuntimeBackend
from trivet.protos.model_config_pb2 import ModelConfig

Dims = Sequence[int | str | None]


def graph_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 17)]
    serialised: bytes = helper.make_model(
        graph, opset_imports=opsets, ir_version=9
    ).SerializeToString()
    return serialised


def identity_model(element: int = TensorProto.FLOAT, dims: Dims = ("batch", 4)) -> bytes:
    """y = x."""
    return graph_model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", element, dims)],
        [helper.make_tensor_value_info("y", element, dims)],
    )


def add_sub_model(dims: Dims = ("batch", 4)) -> bytes:
    """sum = a + b, difference = a - b."""
    names = ("a", "b", "sum", "difference")
    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, dims) for n in names}
    return graph_model(
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Sub", ["a", "b"], ["difference"]),
        ],
        [values["a"], values["b"]],
        [values["sum"], values["difference"]],
    )


def zip_map_model(weight: np.ndarray) -> bytes:
    """y = maps of x @ weight."""
    values = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 4))
    numbers = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, numbers))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node(
            "ZipMap", ["scores"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[7, -1]
        ),
    ]
    output = helper.make_value_info("y", kind)
    graph = helper.make_graph(
        nodes, "g", [values], [output], [onnx.numpy_helper.from_array(weight, "w")]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    serialised: bytes = model.SerializeToString()
    return serialised


@dataclass
class Home:
    """The folder of model 'm' and a backend of its own."""

    model_dir: Path
    backend: OnnxRuntimeBackend = field(default_factory=OnnxRuntimeBackend)

    @property
    def files(self) -> ModelFiles:
        return ModelFiles(self.model_dir, 1)

    def put(self, content: bytes, name: str = "model.onnx") -> None:
        path = self.files.version_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def complete(self, text: str = "") -> ModelConfig:
        config = text_format.Parse(text, ModelConfig(name="m", backend="onnxruntime"))
        return self.backend.complete(config, self.files)

    def open(self, text: str = "", cpu_threads: int = 1) -> Instance:
        placement = Placement("m_0_0", "KIND_CPU", 0, cpu_threads)
        return self.backend.open(self.complete(text), self.files, placement)


def make_request(
    inputs: dict[str, np.ndarray], outputs: tuple[str, ...] = (), *, batching: bool = True
) -> CheckedRequest:
    tensors = {name: Tensor.of(name, array) for name, array in inputs.items()}
    first = next(iter(inputs.values()))
    size = first.shape[0] if batching and first.ndim else 1
    return CheckedRequest("m", 1, "", tensors, outputs, batch_size=size)


def run_batch(instance: Instance, *requests: CheckedRequest, batching: bool = True) -> Batch:
    batch = Batch(requests, batching=batching)
    instance.execute(batch)
    return batch


def run_one(
    instance: Instance, *, batching: bool = True, **inputs: np.ndarray
) -> dict[str, np.ndarray]:
    batch = run_batch(instance, make_request(inputs, batching=batching), batching=batching)
    return {tensor.name: tensor.numpy() for tensor in batch.outputs[0]}
