"""`--host-policy` in a real server: models in its process and in their own stay on their cores."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from serving import RunningServer

MODEL = """
import os
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        cores = np.array(sorted(os.sched_getaffinity(0)), np.int32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("CORES", cores)]) for _ in requests]
"""
CONFIG = """
backend: "python"
input [{ name: "IN" data_type: TYPE_FP32 dims: [ 1 ] }]
output [{ name: "CORES" data_type: TYPE_INT32 dims: [ -1 ] }]
parameters { key: "isolation" value { string_value: "%s" } }
instance_group [{ kind: KIND_CPU %s }]
"""
CORES = sorted(os.sched_getaffinity(0))


def write(repository: Path, name: str, isolation: str, policy: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "model.py").write_text(MODEL)
    (repository / name / "config.pbtxt").write_text(CONFIG % (isolation, policy))


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_instances_run_where_their_policy_says(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    write(tmp_path, "inside", "none", 'host_policy: "last"')
    write(tmp_path, "outside", "process", 'host_policy: "last"')
    write(tmp_path, "free", "none", "")
    server = serve(tmp_path, f"--host-policy=last,cpu-cores={CORES[-1]}")
    tensor = grpcclient.InferInput("IN", [1], "FP32")
    tensor.set_data_from_numpy(np.zeros(1, np.float32))
    with grpcclient.InferenceServerClient(server.grpc) as client:
        found = {
            name: client.infer(name, [tensor]).as_numpy("CORES").tolist()
            for name in ("inside", "outside", "free")
        }
    assert found == {"inside": CORES[-1:], "outside": CORES[-1:], "free": CORES}
