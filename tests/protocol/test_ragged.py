"""Requests of different lengths that an ONNX model computes as one batch."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from onnx import TensorProto, helper
from serving import RunningServer

CONFIG = """
max_batch_size: 8
dynamic_batching {}
input [{ name: "RAGGED" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }]
output [
  { name: "SUM" data_type: TYPE_FP32 dims: [ 1 ] },
  { name: "DOUBLED" data_type: TYPE_FP32 dims: [ -1 ] }
]
batch_input {
  kind: BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO
  target_name: "BORDERS" data_type: TYPE_INT64 source_input: "RAGGED"
}
batch_output {
  kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "DOUBLED" source_input: "RAGGED"
}
instance_group { count: 1 }
"""


def sums_bytes() -> bytes:
    """ONNX: SUM[i] = the sum of RAGGED between borders i and i + 1; DOUBLED = 2 * RAGGED."""

    def value(label: str, element: int, dims: list[str | int]) -> Any:
        return helper.make_tensor_value_info(label, element, dims)

    def constant(label: str, element: int, dims: list[int], values: list[float]) -> Any:
        return helper.make_tensor(label, element, dims, values)

    nodes = [
        helper.make_node("CumSum", ["RAGGED", "axis"], ["running"]),
        helper.make_node("Concat", ["zero", "running"], ["from_zero"], axis=0),
        helper.make_node("Gather", ["from_zero", "BORDERS"], ["at_borders"]),
        helper.make_node("Slice", ["at_borders", "one", "end"], ["ends"]),
        helper.make_node("Slice", ["at_borders", "start", "last"], ["starts"]),
        helper.make_node("Sub", ["ends", "starts"], ["sums"]),
        helper.make_node("Unsqueeze", ["sums", "one"], ["SUM"]),
        helper.make_node("Add", ["RAGGED", "RAGGED"], ["DOUBLED"]),
    ]
    constants = [
        constant("axis", TensorProto.INT64, [], [0]),
        constant("zero", TensorProto.FLOAT, [1], [0.0]),
        constant("one", TensorProto.INT64, [1], [1]),
        constant("start", TensorProto.INT64, [1], [0]),
        constant("last", TensorProto.INT64, [1], [-1]),
        constant("end", TensorProto.INT64, [1], [2**31]),
    ]
    inputs = [
        value("RAGGED", TensorProto.FLOAT, ["elements"]),
        value("BORDERS", TensorProto.INT64, ["borders"]),
    ]
    outputs = [
        value("SUM", TensorProto.FLOAT, ["requests", 1]),
        value("DOUBLED", TensorProto.FLOAT, ["elements"]),
    ]
    graph = helper.make_graph(nodes, "sums", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    serialised: bytes = model.SerializeToString()
    return serialised


def test_requests_of_three_lengths_are_one_batch(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    (tmp_path / "ragged/1").mkdir(parents=True)
    (tmp_path / "ragged/1/model.onnx").write_bytes(sums_bytes())
    (tmp_path / "ragged/config.pbtxt").write_text(CONFIG)
    server = serve(tmp_path, "--delay-scheduler=3")
    with grpcclient.InferenceServerClient(server.grpc) as client:

        def infer(length: int) -> tuple[float, list[list[float]]]:
            tensor = grpcclient.InferInput("RAGGED", [1, length], "FP32")
            tensor.set_data_from_numpy(np.full((1, length), length, np.float32))
            answer = client.infer("ragged", [tensor])
            return answer.as_numpy("SUM").item(), answer.as_numpy("DOUBLED").tolist()

        lengths = (1, 5, 2)
        with ThreadPoolExecutor(3) as threads:
            answers = list(threads.map(infer, lengths))
        (statistics,) = client.get_inference_statistics("ragged").model_stats
        assert answers == [(n * n, [[2 * n] * n]) for n in lengths]
        assert (statistics.inference_count, statistics.execution_count) == (3, 1)
        assert infer(4) == (16, [[8] * 4])
