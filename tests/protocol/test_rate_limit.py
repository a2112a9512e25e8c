"""The rate limiter as operators meet it: options, load errors, and models that take turns."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpcclient
from patience import patience
from sequence_models import write_accumulator
from serving import RunningServer, write_identity

LIMITED = """
instance_group [{ count: 2 kind: KIND_CPU rate_limiter {
  resources [{ name: "cores" global: true count: %d }]
} }]
"""


def infer(server: RunningServer, model: str) -> None:
    with grpcclient.InferenceServerClient(server.grpc) as client:
        tensor = grpcclient.InferInput("INPUT0", [1, 16], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 16), np.float32))
        client.infer(model, [tensor])


def test_limited_models_of_every_scheduler_are_served(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    write_identity(tmp_path, "small", more=LIMITED % 1)
    write_identity(tmp_path, "big", more=LIMITED % 2 + "dynamic_batching {}")
    write_accumulator(tmp_path, "summing", more=LIMITED % 1)
    server = serve(tmp_path, "--rate-limit=execution_count", "--rate-limit-resource=cores:2")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: infer(server, name), ["small", "big"] * 20))
    with grpcclient.InferenceServerClient(server.grpc) as client:
        for step in (1, 2, 3):
            tensor = grpcclient.InferInput("INPUT", [1, 1], "INT32")
            tensor.set_data_from_numpy(np.full((1, 1), step, np.int32))
            flags = {"sequence_id": 1, "sequence_start": step == 1, "sequence_end": step == 3}
            answer = client.infer("summing", [tensor], **flags)
        assert answer.as_numpy("OUTPUT").item() == 6


def test_a_model_that_could_never_run_does_not_load(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    write_identity(tmp_path, "small", more=LIMITED % 1)
    write_identity(tmp_path, "big", more=LIMITED % 2)
    flags = ("--rate-limit=execution_count", "--rate-limit-resource=cores:1")
    server = serve(tmp_path, *flags, "--exit-on-error=false", "--strict-readiness=false")
    reason = server.index()["big", "1"]["reason"]
    assert "resource count for 'cores' is limited to 1" in reason
    infer(server, "small")


def test_a_wrong_option_ends_the_start_with_its_text(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    flags = ("--rate-limit=execution_count", "--rate-limit-resource=cores")
    server = serve(tmp_path, *flags, wait=False)
    assert server.process.wait(patience()) == 1
    assert any("--rate-limit-resource cores: give NAME:COUNT" in line for line in server.output)
