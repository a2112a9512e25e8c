"""A decoupled step in a process of its own waits for the steps after it, too."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from patience import patience
from serving import RunningServer

MOST, COUNT = 4, 40
PRODUCER = """
import os
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            count = int(pb_utils.get_input_tensor_by_name(request, "COUNT").as_numpy()[0])
            for number in range(count):
                values = np.full(25_000, number, np.float32)
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("VALUES", values)]))
                with open(os.path.join(pb_utils.get_model_dir(), "sent"), "w") as sent:
                    sent.write(str(number + 1))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
CONSUMER = """
import os
import time
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        lead = os.path.join(pb_utils.get_model_dir(), "..", "..", "producer", "1", "sent")
        responses = []
        for request in requests:
            number = int(pb_utils.get_input_tensor_by_name(request, "VALUES").as_numpy()[0])
            time.sleep(0.01)
            ahead = int(open(lead).read() or 0) - number if number else 0
            answer = np.array([number, ahead], np.int32)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("ANSWER", answer)]))
        return responses
"""
COUNTED = 'input [{ name: "COUNT" data_type: TYPE_INT32 dims: [ 1 ] }]'
VALUES = '[{ name: "VALUES" data_type: TYPE_FP32 dims: [ 25000 ] }]'
ANSWERED = 'output [{ name: "ANSWER" data_type: TYPE_INT32 dims: [ 2 ] }]'
INSIDE = 'parameters { key: "isolation" value { string_value: "none" } }'
DECOUPLED = "model_transaction_policy { decoupled: true }"
ENSEMBLE = """
platform: "ensemble"
ensemble_scheduling {
  max_inflight_requests: %d
  step [
    { model_name: "producer"
      input_map { key: "COUNT" value: "COUNT" } output_map { key: "VALUES" value: "VALUES" } },
    { model_name: "consumer"
      input_map { key: "VALUES" value: "VALUES" } output_map { key: "ANSWER" value: "ANSWER" } }
  ]
}
"""


def write(repository: Path, name: str, config: str, source: str = "") -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config)
    if source:
        (repository / name / "1" / "model.py").write_text(source)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="module")
def server(serve: Callable[..., RunningServer], repository: Path) -> RunningServer:
    write(repository, "producer", f"{COUNTED} output {VALUES} {DECOUPLED}", PRODUCER)
    write(repository, "consumer", f"input {VALUES} {ANSWERED} {INSIDE}", CONSUMER)
    write(repository, "stream", ENSEMBLE % MOST)
    return serve(repository, "--model-control-mode=none")


@pytest.fixture
def arrived(server: RunningServer) -> Iterator[tuple[Any, SimpleQueue[Any]]]:
    """A stream, and what comes out of it."""
    queue: SimpleQueue[Any] = SimpleQueue()
    with grpcclient.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: queue.put(error or result))
        yield client, queue


def ask(client: Any, count: int) -> None:
    tensor = grpcclient.InferInput("COUNT", [1], "INT32")
    tensor.set_data_from_numpy(np.array([count], np.int32))
    client.async_stream_infer("stream", [tensor], enable_empty_final_response=True)


def test_the_process_never_runs_further_ahead_than_the_config_allows(
    arrived: tuple[Any, SimpleQueue[Any]],
) -> None:
    client, queue = arrived
    ask(client, COUNT)
    answers: list[list[int]] = []
    while len(answers) < COUNT:
        answers.append(queue.get(timeout=patience()).as_numpy("ANSWER").tolist())
    assert [number for number, _ in answers] == list(range(COUNT))
    # It writes what it has sent; the one being looked at is on its way as well.
    assert max(ahead for _, ahead in answers) <= MOST + 1


def test_a_process_that_waits_goes_on_when_its_client_goes(
    repository: Path, arrived: tuple[Any, SimpleQueue[Any]]
) -> None:
    client, queue = arrived
    ask(client, 1000)
    queue.get(timeout=patience())
    client.stop_stream(cancel_requests=True)

    ended_s = time.monotonic() + patience()
    sent = repository / "producer" / "1" / "sent"
    while sent.read_text() != "1000":
        assert time.monotonic() < ended_s
        time.sleep(0.02)
