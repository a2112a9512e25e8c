"""Models that keep sequences apart: accumulators with controls, with implicit state, iterative."""

from pathlib import Path
from typing import Any

from onnx import TensorProto, helper
from patience import patience

CONTROLS = """
  control_input [
    { name: "START" control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }] },
    { name: "READY" control [{ kind: CONTROL_SEQUENCE_READY fp32_false_true: [ 0, 1 ] }] },
    { name: "END" control [{ kind: CONTROL_SEQUENCE_END bool_false_true: [ false, true ] }] },
    { name: "CORRID" control [{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_%s }] }
  ]
"""
IN_OUT = """
input [{ name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] }]
output [{ name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] }]
"""
ACCUMULATOR = '''
import os
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    """Sums up per correlation id; negative input: dies; -1000: fails."""

    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        return [self.one(request) for request in requests]

    def one(self, request):
        tensors = {t.name(): t.as_numpy().ravel()[0] for t in request.inputs()}
        if not tensors["READY"]:
            return pb_utils.InferenceResponse([])
        key, value = tensors["CORRID"], int(tensors["INPUT"])
        if value == -1000:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("swordfish"))
        if value < 0:
            os._exit(3)
        if tensors["START"]:
            self.sums[key] = 0
        total = self.sums[key] = self.sums[key] + value
        if tensors["END"]:
            del self.sums[key]
        output = pb_utils.Tensor("OUTPUT", np.array([[total]], np.int32))
        return pb_utils.InferenceResponse([output])
'''
ITERATIVE = '''
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    """Counts INPUT down, one pass each; decoupled: a response for each pass."""

    def initialize(self, args):
        self.is_decoupled = '"decoupled":true' in args["model_config"].replace(" ", "")
        self.left, self.batches = {}, []

    def execute(self, requests):
        answers = [self.one(request, len(requests)) for request in requests]
        return None if self.is_decoupled else answers

    def one(self, request, size):
        tensors = {t.name(): t.as_numpy().ravel()[0] for t in request.inputs()}
        key = int(tensors["CORRID"])
        if tensors["START"]:
            assert key not in self.left
            self.left[key] = int(tensors["INPUT"])
        left = self.left[key] = self.left[key] - 1
        is_last = left <= 0
        if is_last:
            del self.left[key]
        else:
            request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
        values = np.array([[left]], np.int32), np.array([[size]], np.int32)
        names = ("OUTPUT", "SIZE")
        response = pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, value) for name, value in zip(names, values)]
        )
        if not self.is_decoupled:
            return response if is_last else None
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if is_last else 0
        request.get_response_sender().send(response, flags)
'''


def write_accumulator(
    repository: Path,
    name: str,
    *,
    strategy: str = "direct {}",
    corrid: str = "UINT64",
    more: str = "",
    idle_us: int | None = None,
    isolation: str = "none",
    max_batch_size: int = 4,
) -> None:
    """A Python model that sums up what the requests of a sequence bring."""
    idle_us = int(patience(5) * 1e6) if idle_us is None else idle_us
    config = f"""
backend: "python" max_batch_size: {max_batch_size} {IN_OUT}
sequence_batching {{
  {strategy} max_sequence_idle_microseconds: {idle_us} {CONTROLS % corrid}
}}
parameters {{ key: "isolation" value {{ string_value: "{isolation}" }} }}
{more}
"""
    _write(repository, name, config, ACCUMULATOR)


def write_iterative(
    repository: Path, name: str, *, decoupled: bool, isolation: str = "none"
) -> None:
    """A Python model that counts its input down, pass by pass."""
    config = f"""
backend: "python" max_batch_size: 4
input [{{ name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] }}]
output [
  {{ name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] }},
  {{ name: "SIZE" data_type: TYPE_INT32 dims: [ 1 ] }}
]
sequence_batching {{
  iterative_sequence: true oldest {{ max_candidate_sequences: 4 }} {CONTROLS % "UINT64"}
}}
model_transaction_policy {{ decoupled: {str(decoupled).lower()} }}
parameters {{ key: "isolation" value {{ string_value: "{isolation}" }} }}
"""
    _write(repository, name, config, ITERATIVE)


def write_implicit(
    repository: Path,
    name: str,
    *,
    strategy: str = "oldest { max_candidate_sequences: 16 }",
    state: str = "",
    initial: bytes | None = None,
    more: str = "",
) -> None:
    """An ONNX model: OUTPUT = INPUT + STATE, which is kept. FP32 [1]."""
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(adding_state_bytes())
    (folder.parent / "config.pbtxt").write_text(f"""
max_batch_size: 8
sequence_batching {{
  {strategy}
  state [{{
    input_name: "STATE_IN" output_name: "STATE_OUT" data_type: TYPE_FP32 dims: [ 1 ] {state}
  }}]
}}
{more}
""")
    if initial is not None:
        (folder.parent / "initial_state").mkdir()
        (folder.parent / "initial_state" / "first").write_bytes(initial)


def adding_state_bytes() -> bytes:
    """ONNX: OUTPUT = STATE_OUT = INPUT + STATE_IN, FP32 [batch, 1]."""

    def value(label: str) -> Any:
        return helper.make_tensor_value_info(label, TensorProto.FLOAT, ["batch", 1])

    nodes = [
        helper.make_node("Add", ["INPUT", "STATE_IN"], ["OUTPUT"]),
        helper.make_node("Identity", ["OUTPUT"], ["STATE_OUT"]),
    ]
    inputs, outputs = [value("INPUT"), value("STATE_IN")], [value("OUTPUT"), value("STATE_OUT")]
    graph = helper.make_graph(nodes, "sum", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    serialised: bytes = model.SerializeToString()
    return serialised


def _write(repository: Path, name: str, config: str, source: str) -> None:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(source)
    (folder.parent / "config.pbtxt").write_text(config)
