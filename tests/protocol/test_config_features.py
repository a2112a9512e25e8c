"""What a config.pbtxt asks for, seen by a client: reshape, optional inputs, priorities, limits."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from fault_room import pending
from gated_models import Gate, write_gated
from patience import patience
from serving import RunningServer, write_identity
from tritonclient.utils import InferenceServerException

SLOW_S = patience(0.5)
SLOW = f'parameters {{ key: "execute_delay_ms" value {{ string_value: "{SLOW_S * 1000:.0f}" }} }}'
ONE = "instance_group [{ count: 1 kind: KIND_CPU }]"
RESHAPED = """
backend: "identity" max_batch_size: 8
input [{ name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] } }]
output [{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] } }]
"""
OPTIONAL = """
backend: "python" max_batch_size: 8
input [
  { name: "A" data_type: TYPE_FP32 dims: [ 1 ] },
  { name: "B" data_type: TYPE_FP32 dims: [ 1 ] optional: true }
]
output [
  { name: "SUM" data_type: TYPE_FP32 dims: [ 1 ] },
  { name: "NAMES" data_type: TYPE_STRING dims: [ 1 ] }
]
dynamic_batching {}
"""
OPTIONAL_MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            tensors = {t.name(): t.as_numpy() for t in request.inputs()}
            total = sum(tensors.values())
            names = np.array([[",".join(sorted(tensors))]] * len(total), dtype=object)
            outputs = [pb_utils.Tensor("SUM", total.astype(np.float32)),
                       pb_utils.Tensor("NAMES", names)]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
"""
PRIORITIES = f"""{ONE}
dynamic_batching {{
  max_queue_delay_microseconds: 0
  priority_levels: 2 default_priority_level: 2
}}
"""
TIMEOUT = f"""{ONE} {SLOW}
dynamic_batching {{ default_queue_policy {{
  default_timeout_microseconds: {SLOW_S / 2 * 1e6:.0f} max_queue_size: 2 }} }}
"""


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """What `priorities` waits for."""
    return Gate(tmp_path_factory.mktemp("gate") / "shut")


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., RunningServer], gate: Gate, tmp_path_factory: pytest.TempPathFactory
) -> RunningServer:
    root = tmp_path_factory.mktemp("models")
    for name, text in (("reshaped", RESHAPED), ("optional", OPTIONAL)):
        (root / name / "1").mkdir(parents=True)
        (root / name / "config.pbtxt").write_text(text)
    (root / "optional" / "1" / "model.py").write_text(OPTIONAL_MODEL)
    write_gated(root, "priorities", gate, dims=1, more=PRIORITIES)
    config = write_identity(root, "timeout", dims="1", more=TIMEOUT) / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 8", "max_batch_size: 1"))
    return serve(root)


def tensor(name: str, *shape: int, value: float = 1.0) -> Any:
    made = grpcclient.InferInput(name, list(shape), "FP32")
    made.set_data_from_numpy(np.full(shape, value, np.float32))
    return made


@pytest.fixture
def client(server: RunningServer) -> Any:
    with grpcclient.InferenceServerClient(server.grpc) as made:
        yield made


def test_clients_see_the_shape_of_dims_not_of_reshape(client: Any) -> None:
    result = client.infer("reshaped", [tensor("INPUT0", 3, 4)])
    assert result.as_numpy("OUTPUT0").shape == (3, 4)
    metadata = client.get_model_metadata("reshaped", as_json=True)
    assert metadata["inputs"][0]["shape"] == ["-1", "4"]


def test_an_optional_input_may_be_left_out(client: Any) -> None:
    both = client.infer("optional", [tensor("A", 1, 1), tensor("B", 1, 1, value=5)])
    alone = client.infer("optional", [tensor("A", 1, 1)])
    assert (both.as_numpy("SUM")[0, 0], alone.as_numpy("SUM")[0, 0]) == (6, 1)
    assert both.as_numpy("NAMES")[0, 0] == b"A,B"
    assert alone.as_numpy("NAMES")[0, 0] == b"A"
    with pytest.raises(InferenceServerException, match="expected number of inputs between 1 and 2"):
        client.infer("optional", [])


def test_requests_with_and_without_an_optional_input_may_come_together(
    server: RunningServer,
) -> None:
    def call(number: int) -> float:
        inputs = [tensor("A", 1, 1, value=number)]
        inputs += [tensor("B", 1, 1, value=100)] if number % 2 else []
        with grpcclient.InferenceServerClient(server.grpc) as made:
            return float(made.infer("optional", inputs).as_numpy("SUM")[0, 0])

    with ThreadPoolExecutor(8) as pool:
        returned = list(pool.map(call, range(24)))
    assert returned == [n + (100 if n % 2 else 0) for n in range(24)]


def test_a_high_priority_request_overtakes(server: RunningServer, client: Any, gate: Gate) -> None:
    order: list[str] = []
    done = threading.Semaphore(0)

    def send(name: str, priority: int) -> None:
        def answered(result: Any, error: Any) -> None:
            order.append(name)
            done.release()

        client.async_infer("priorities", [tensor("INPUT0", 1, 1)], answered, priority=priority)

    with gate.shut():
        send("first", 0)
        server.wait_until(gate.is_reached, "computed the first, which holds up the others")
        for ahead, (name, priority) in enumerate((("low", 2), ("default", 0), ("high", 1))):
            send(name, priority)
            server.wait_until(lambda ahead=ahead: pending(server) > ahead, f"took {name}")  # type: ignore[misc]
    for _ in range(4):
        assert done.acquire(timeout=patience())
    assert order == ["first", "high", "low", "default"]


def test_a_queue_policy_refuses_the_late_and_the_too_many(server: RunningServer) -> None:
    together = threading.Barrier(8, timeout=patience())

    def call(_: int) -> str:
        with grpcclient.InferenceServerClient(server.grpc) as made:
            assert made.is_server_live()
            together.wait()
            try:
                made.infer("timeout", [tensor("INPUT0", 1, 1)])
            except InferenceServerException as error:
                return f"{error.status()} {str(error.message()).split('] ')[-1]}"
        return "answered"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(call, range(8)))
    expired = "StatusCode.UNAVAILABLE Request timeout expired"
    assert set(outcomes) == {
        "answered",
        expired,
        "StatusCode.UNAVAILABLE Exceeds maximum queue size",
    }
    # The queue holds two, of which one is the answered one if the others come before it begins.
    assert outcomes.count(expired) in (1, 2)


def test_rejections_are_counted(server: RunningServer, tmp_path: Path) -> None:
    text = server.metrics()
    label = '{model="timeout",reason="REJECTED",version="1"}'
    counted = next(line for line in text.splitlines() if line.startswith(
        f"nv_inference_request_failure{label}"))  # fmt: skip
    assert int(counted.split()[-1]) >= 7
