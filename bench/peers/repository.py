"""The models that both servers have, but for the backend that computes in the server itself."""

from pathlib import Path

import numpy as np

CONFIG = """
backend: "{backend}"
max_batch_size: 64
input [ {inputs} ]
output [ {outputs} ]
dynamic_batching {{ }}
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""
TENSOR = '{{ name: "{name}" data_type: TYPE_{kind} dims: [ -1 ] }}'
MODEL = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        values = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", values)])
"""
KINDS = {"f": "FP32", "O": "STRING"}
Inputs = dict[str, np.ndarray]


def one_tensor(count: int = 16) -> Inputs:
    """So many floats."""
    return {"INPUT0": np.random.default_rng(1).random((1, count), dtype=np.float32)}


def two_tensors() -> Inputs:
    """Floats and texts."""
    return {**one_tensor(), "INPUT1": np.array([[b"one text", b"", b"another"]], dtype=object)}


def write_repository(repository: Path, backend: str) -> None:
    """`backend`: what computes in the server itself."""
    _write(repository / "in-server", backend, one_tensor())
    _write(repository / "in-server-two", backend, two_tensors())
    _write(repository / "python", "python", one_tensor())
    (repository / "python/1/model.py").write_text(MODEL)


def _write(model: Path, backend: str, inputs: Inputs) -> None:
    (model / "1").mkdir(parents=True)
    kinds = {name: KINDS[values.dtype.kind] for name, values in inputs.items()}
    taken = ", ".join(TENSOR.format(name=name, kind=kind) for name, kind in kinds.items())
    given = taken.replace("INPUT", "OUTPUT")
    text = CONFIG.format(backend=backend, inputs=taken, outputs=given)
    (model / "config.pbtxt").write_text(text)
