"""What models of Python cost: memory of each of fifteen, and how long one takes to load."""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median

import psutil

from bench.figures import Row
from bench.processes import Listener, trivet

NUM_MODELS = 15
MOST_MB = 20.0
_CODE = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(each, "IN").as_numpy() for each in requests]
        tensors = [pb_utils.Tensor("OUT", array * np.float32(2)) for array in arrays]
        return [pb_utils.InferenceResponse([tensor]) for tensor in tensors]
"""
_CONFIG = """
max_batch_size: 8
input { name: "IN" data_type: TYPE_FP32 dims: 16 }
output { name: "OUT" data_type: TYPE_FP32 dims: 16 }
"""
_BARE = "import numpy, google.protobuf.message"
_BODY = {"inputs": [{"name": "IN", "datatype": "FP32", "shape": [1, 16], "data": [1.0] * 16}]}


def bench_python_models(seconds: float, rounds: int) -> list[Row]:  # noqa: ARG001 - how often counts
    """Two cells: the memory of each model that serves, and the time of a load."""
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        for number in range(NUM_MODELS):
            _write(repository / f"model{number}")
        with trivet(repository, "--model-control-mode=explicit", "--load-model=*") as server:
            for number in range(NUM_MODELS):
                _post(server, f"/v2/models/model{number}/infer", _BODY)
            each_mb = _pss_bytes(server.pid) / NUM_MODELS / 1e6
            loads_ms = [_load_ms(server) for _ in range(5 * rounds)]
    starts_ms = [_bare_ms() for _ in range(5 * rounds)]
    return [
        Row(
            f"memory/python-model/{NUM_MODELS}",
            "models/GB",
            1e3 / each_mb,
            1e3 / MOST_MB,
            1.0,
            note=f"{each_mb:.1f} MB each, proportional set size / the limit, {MOST_MB:.0f} MB",
        ),
        Row(
            "load/python-model",
            "loads/s",
            1e3 / median(loads_ms),
            1e3 / median(starts_ms),
            1.0,
            note=f"{median(loads_ms):.0f} ms / {median(starts_ms):.0f} ms, an interpreter that "
            "imports numpy and protobuf",
        ),
    ]


def _write(model: Path) -> None:
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").write_text(_CODE)
    (model / "config.pbtxt").write_text(_CONFIG)


def _post(server: Listener, path: str, document: object) -> None:
    url = f"http://127.0.0.1:{server.ports['http']}{path}"
    with urllib.request.urlopen(url, json.dumps(document).encode(), timeout=60) as answer:
        answer.read()


def _load_ms(server: Listener) -> float:
    _post(server, "/v2/repository/models/model0/unload", {})
    start_s = time.perf_counter()
    _post(server, "/v2/repository/models/model0/load", {})
    return (time.perf_counter() - start_s) * 1e3


def _pss_bytes(server_pid: int) -> int:
    """Of all processes that the server has started."""
    children = psutil.Process(server_pid).children(recursive=True)
    return sum(child.memory_full_info().pss for child in children)


def _bare_ms() -> float:
    start_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", _BARE], check=True)
    return (time.perf_counter() - start_s) * 1e3
