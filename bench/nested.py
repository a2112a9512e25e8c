"""A Python model that asks another model, next to a client that asks both."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bench.figures import Measure, Row, alternate, describe
from bench.infer import CONFIG
from bench.messages import write_request
from bench.processes import run_load, trivet

CONCURRENCY = 16
BAR = 0.5
"""Asking may cost twice a client's calls: a question wakes four threads, in two processes."""
PYTHON_CONFIG = CONFIG.replace('backend: "identity"', 'backend: "python"')
PLAIN = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request.inputs()[0]) for request in requests]

    def answer(self, tensor):
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", tensor.as_numpy())])
"""
ASKING = """
import asyncio

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    async def execute(self, requests):
        asked = [
            pb_utils.InferenceRequest(
                model_name="asked", requested_output_names=["OUTPUT0"], inputs=request.inputs()
            ).async_exec()
            for request in requests
        ]
        found = await asyncio.gather(*asked)
        return [pb_utils.InferenceResponse(each.output_tensors()) for each in found]
"""


def bench_nested(seconds: float, rounds: int) -> list[Row]:
    """Requests per second at 16 in flight, the Python models in processes of their own."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        _write(folder / "models")
        values = np.random.default_rng(1).random((1, 16), dtype=np.float32)
        ours = stack.enter_context(trivet(folder / "models"))
        sides: dict[str, Measure] = {}
        for model in ("asked", "plain", "asking"):
            request = write_request(folder, model, {"INPUT0": values}, values.tobytes())
            load = request.load("grpc", ours, CONCURRENCY, seconds)
            sides[model] = lambda load=load: run_load(load)  # type: ignore[misc]  # binds the loop's value
        found = alternate(sides, rounds)
    for side, figures in found.items():
        print(describe(side, figures), flush=True)
    rate = {side: figures["rate_per_s"] for side, figures in found.items()}
    both = 1 / (1 / rate["plain"] + 1 / rate["asked"])
    cell = f"Python model that asks another, grpc, c={CONCURRENCY}, a client's two calls"
    return [Row(cell, "1/s", rate["asking"], both, BAR)]


def _write(repository: Path) -> None:
    for name, source in (("asked", ""), ("plain", PLAIN), ("asking", ASKING)):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(PYTHON_CONFIG if source else CONFIG)
        if source:
            (repository / name / "1/model.py").write_text(source)
