"""Sequences as unmodified tritonclient programs use them, over HTTP, gRPC and gRPC streams."""

import queue
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from heard import hear_triton
from patience import patience
from sequence_models import write_accumulator, write_implicit, write_iterative
from serving import RunningServer
from tritonclient.utils import InferenceServerException

MODULES = {"http": httpclient, "grpc": grpcclient}
OLDEST = "oldest { max_candidate_sequences: 64 }"
REPEAT = """
backend: "repeat"
model_transaction_policy { decoupled: true }
input [{ name: "IN" data_type: TYPE_INT32 dims: [ -1 ] }]
output [
  { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] }
]
sequence_batching { direct {} }
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="module")
def server(serve: Callable[..., RunningServer], repository: Path) -> RunningServer:
    write_accumulator(repository, "direct")
    write_accumulator(repository, "oldest", strategy=OLDEST)
    write_accumulator(repository, "text", strategy=OLDEST, corrid="STRING")
    idle_us = int(patience(0.5) * 1e6)
    write_accumulator(
        repository, "narrow", max_batch_size=0, idle_us=idle_us, more="instance_group { count: 1 }"
    )
    write_accumulator(repository, "mortal", strategy=OLDEST, isolation="process")
    initial = 'initial_state { name: "i" data_type: TYPE_FP32 dims: [ 1 ] data_file: "first" }'
    write_accumulator(repository, "renewed", strategy=OLDEST)
    write_implicit(repository, "implicit")
    write_implicit(
        repository,
        "placed",
        strategy="direct {}",
        more='model_warmup [{ name: "w" batch_size: 2 inputs { key: "INPUT" value { '
        "data_type: TYPE_FP32 dims: [ 1 ] zero_data: true } } }]",
    )
    write_implicit(repository, "begun", state=initial, initial=struct.pack("<f", 100))
    (repository / "repeat/1").mkdir(parents=True)
    (repository / "repeat/config.pbtxt").write_text(REPEAT)
    write_accumulator(repository, "patient", max_batch_size=0, more="instance_group { count: 1 }")
    write_iterative(repository, "passes", decoupled=False)
    write_iterative(repository, "steps", decoupled=True)
    write_iterative(repository, "steps_apart", decoupled=True, isolation="process")
    return serve(repository)


@pytest.fixture(params=MODULES)
def send(request: pytest.FixtureRequest, server: RunningServer) -> Iterator[Callable[..., float]]:
    """Sends one request of a sequence over the protocol of the test; the value that comes back."""
    module = MODULES[request.param]
    client = module.InferenceServerClient(getattr(server, request.param))
    yield lambda model, value, **flags: one(module, client, model, value, **flags)
    client.close()


def one(module: Any, client: Any, model: str, value: float, **flags: Any) -> float:
    answer = client.infer(model, [tensor(module, model, value)], **flags)
    result: float = answer.as_numpy("OUTPUT").item()
    return result


def tensor(module: Any, model: str, value: float) -> Any:
    word, dtype = (
        ("FP32", np.float32) if model in ("implicit", "begun", "placed") else ("INT32", np.int32)
    )
    shape = [1] if model in ("narrow", "patient") else [1, 1]
    made = module.InferInput("INPUT", shape, word)
    made.set_data_from_numpy(np.full(shape, value, dtype))
    return made


@pytest.mark.parametrize("model", ["direct", "oldest", "text", "implicit"])
def test_a_sequence_is_summed_up_from_its_start_to_its_end(
    send: Callable[..., float], model: str
) -> None:
    for _ in range(2):
        sums = [
            send(model, value, sequence_id=42, sequence_start=value == 1, sequence_end=value == 4)
            for value in (1, 2, 3, 4)
        ]
        assert sums == [1, 3, 6, 10]


def test_correlation_ids_may_be_texts(send: Callable[..., float]) -> None:
    assert send("text", 5, sequence_id="my-sequence", sequence_start=True) == 5
    assert send("text", 7, sequence_id="my-sequence", sequence_end=True) == 12


def test_state_begins_with_the_file_that_the_config_names(send: Callable[..., float]) -> None:
    assert send("begun", 1, sequence_id=3, sequence_start=True) == 101
    assert send("begun", 1, sequence_id=3, sequence_end=True) == 102


def test_interleaved_sequences_do_not_mix(send: Callable[..., float]) -> None:
    ids = range(1, 4)
    for model in ("direct", "oldest", "implicit", "placed"):
        for step in range(3):
            for each in ids:
                flags = {"sequence_start": step == 0, "sequence_end": step == 2}
                assert send(model, each, sequence_id=each, **flags) == each * (step + 1)


@pytest.mark.rows("V44b")
@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({}, "must specify a non-zero or non-empty correlation ID"),
        (
            {"sequence_id": 99},
            "inference request for sequence 99 to model 'direct' must specify the START flag on "
            "the first request of the sequence",
        ),
        ({"sequence_id": "seven", "sequence_start": True}, "use an integer"),
    ],
)
def test_requests_that_are_in_no_sequence_are_refused(
    send: Callable[..., float], flags: dict[str, Any], text: str
) -> None:
    with pytest.raises(InferenceServerException, match=text) as raised:
        send("direct", 1, **flags)
    hear_triton(raised.value.status(), raised.value.message())


def test_a_batch_of_two_is_refused(server: RunningServer) -> None:
    with grpcclient.InferenceServerClient(server.grpc) as client:
        made = grpcclient.InferInput("INPUT", [2, 1], "INT32")
        made.set_data_from_numpy(np.ones((2, 1), np.int32))
        with pytest.raises(InferenceServerException, match="must specify batch-size 1"):
            client.infer("direct", [made], sequence_id=1, sequence_start=True)


def test_after_its_end_an_id_needs_a_new_start(send: Callable[..., float]) -> None:
    assert send("oldest", 1, sequence_id=8, sequence_start=True, sequence_end=True) == 1
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        send("oldest", 1, sequence_id=8)


def test_an_idle_sequence_loses_its_slot_to_one_that_waits(
    server: RunningServer, send: Callable[..., float]
) -> None:
    assert send("narrow", 1, sequence_id=5, sequence_start=True) == 1
    assert send("narrow", 1, sequence_id=6, sequence_start=True, sequence_end=True) == 1
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        send("narrow", 1, sequence_id=5)
    labels = 'model="narrow",version="1"'
    assert f"trivet_sequences_open{{{labels}}} 0" in server.metrics()
    assert f'trivet_sequences_ended_total{{{labels},how="idle"}} 0' not in server.metrics()


def test_a_sequence_waits_for_a_slot_until_another_ends(server: RunningServer) -> None:
    with grpcclient.InferenceServerClient(server.grpc) as client, ThreadPoolExecutor(4) as threads:

        def run(sequence_id: int) -> list[float]:
            return [
                one(
                    grpcclient,
                    client,
                    "narrow",
                    step,
                    sequence_id=sequence_id,
                    sequence_start=step == 1,
                    sequence_end=step == 3,
                )
                for step in (1, 2, 3)
            ]

        assert list(threads.map(run, range(1, 9))) == [[1, 3, 6]] * 8


def test_a_failing_request_does_not_end_its_sequence(send: Callable[..., float]) -> None:
    send("oldest", 1, sequence_id=12, sequence_start=True)
    with pytest.raises(InferenceServerException, match="swordfish"):
        send("oldest", -1000, sequence_id=12)
    assert send("oldest", 2, sequence_id=12, sequence_end=True) == 3


def test_sequences_of_a_process_that_dies_are_over(
    server: RunningServer, send: Callable[..., float]
) -> None:
    for each in (21, 22):
        send("mortal", each, sequence_id=each, sequence_start=True)
    with pytest.raises(InferenceServerException, match="died while executing"):
        send("mortal", -1, sequence_id=21)
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        send("mortal", 1, sequence_id=22)
    server.wait_until(lambda: server.get("/v2/models/mortal/ready")[0] == 200, "ready again")
    assert send("mortal", 3, sequence_id=22, sequence_start=True, sequence_end=True) == 3


def test_a_process_that_dies_between_two_requests_is_noticed(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    write_accumulator(tmp_path, "fragile", strategy=OLDEST, isolation="process")
    server = serve(tmp_path)
    with grpcclient.InferenceServerClient(server.grpc) as client:

        def send(value: int, **flags: Any) -> float:
            return one(grpcclient, client, "fragile", value, **flags)

        for each in (31, 32):
            send(1, sequence_id=each, sequence_start=True)
        for child in psutil.Process(server.process.pid).children():
            child.kill()
        with pytest.raises(InferenceServerException, match="fragile_0 died"):
            send(1, sequence_id=31)
        with pytest.raises(InferenceServerException, match="must specify the START flag"):
            send(1, sequence_id=32)
        assert send(5, sequence_id=31, sequence_start=True, sequence_end=True) == 5


class Stream:
    """A gRPC stream and what came back on it."""

    def __init__(self, server: RunningServer) -> None:
        self.client = grpcclient.InferenceServerClient(server.grpc)
        self.answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)))

    def send(self, model: str, value: float, **flags: Any) -> None:
        self.client.async_stream_infer(model, [tensor(grpcclient, model, value)], **flags)

    def next(self, name: str = "OUTPUT") -> float:
        result, error = self.answers.get(timeout=patience())
        assert error is None, error
        value: float = result.as_numpy(name).item()
        return value

    def close(self) -> None:
        self.client.stop_stream()
        self.client.close()


@pytest.fixture
def stream(server: RunningServer) -> Iterator[Stream]:
    made = Stream(server)
    yield made
    made.close()


@pytest.mark.parametrize("model", ["direct", "oldest", "text", "implicit", "placed"])
def test_many_sequences_pipelined_on_a_stream_come_back_in_order(
    stream: Stream, model: str
) -> None:
    ids, steps = range(1001, 1021), 5
    for step in range(steps):
        for each in ids:
            flags = {"sequence_start": step == 0, "sequence_end": step == steps - 1}
            stream.send(model, each, sequence_id=each, **flags)
    expected = [each * (step + 1) for step in range(steps) for each in ids]
    assert [stream.next() for _ in expected] == expected


def test_requests_of_a_sequence_may_have_many_answers_each(stream: Stream) -> None:
    for step in range(3):
        made = grpcclient.InferInput("IN", [4], "INT32")
        made.set_data_from_numpy(np.arange(4, dtype=np.int32) + 10 * step)
        flags = {"sequence_start": step == 0, "sequence_end": step == 2}
        stream.client.async_stream_infer("repeat", [made], sequence_id=1, **flags)
    values = [stream.next("OUT") for _ in range(12)]
    assert sorted(values) == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]


def test_a_stream_that_is_cancelled_ends_its_waiting_sequences(
    server: RunningServer, send: Callable[..., float]
) -> None:
    assert send("patient", 1, sequence_id=1, sequence_start=True) == 1
    gone = Stream(server)
    gone.send("patient", 5, sequence_id=2, sequence_start=True)
    labels = '{model="patient",version="1"}'
    waits, waits_not = (f"trivet_sequences_waiting{labels} {count}\n" for count in (1, 0))
    server.wait_until(lambda: waits in server.metrics(), "in the backlog")
    gone.client.stop_stream(cancel_requests=True)
    server.wait_until(lambda: waits_not in server.metrics(), "cut")
    gone.client.close()
    assert send("patient", 2, sequence_id=1, sequence_end=True) == 3
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        send("patient", 1, sequence_id=2)


def test_a_sequence_outlives_the_stream_that_began_it(
    server: RunningServer, send: Callable[..., float]
) -> None:
    made = Stream(server)
    made.send("oldest", 1, sequence_id=31, sequence_start=True)
    assert made.next() == 1
    made.close()
    assert send("oldest", 2, sequence_id=31, sequence_end=True) == 3


def test_an_iterative_request_is_answered_after_its_last_pass(send: Callable[..., float]) -> None:
    assert send("passes", 5) == 0
    assert send("passes", 1, sequence_id=4) == 0


@pytest.mark.parametrize("model", ["steps", "steps_apart"])
def test_iterative_requests_of_a_decoupled_model_share_batches(stream: Stream, model: str) -> None:
    for _ in range(2):
        stream.send(model, 200)
    lefts, sizes = [], []
    for _ in range(400):
        result, error = stream.answers.get(timeout=patience())
        assert error is None, error
        lefts.append(result.as_numpy("OUTPUT").item())
        sizes.append(result.as_numpy("SIZE").item())
    assert sorted(lefts) == sorted([*range(200), *range(200)])
    assert 2 in sizes


def test_a_running_sequence_stays_on_the_version_that_it_began_with(
    server: RunningServer, repository: Path
) -> None:
    def ready(version: int) -> bool:
        return server.index().get(("renewed", str(version)), {}).get("state") == "READY"

    with grpcclient.InferenceServerClient(server.grpc) as client:

        def send(value: int, **flags: Any) -> tuple[str, float]:
            made = [tensor(grpcclient, "renewed", value)]
            answer = client.infer("renewed", made, **flags)
            return answer.get_response().model_version, answer.as_numpy("OUTPUT").item()

        assert send(1, sequence_id=1, sequence_start=True) == ("1", 1)
        shutil.copytree(repository / "renewed/1", repository / "renewed/.2")
        (repository / "renewed/.2").rename(repository / "renewed/2")
        server.wait_until(lambda: ready(2), "version 2")
        assert send(5, sequence_id=2, sequence_start=True) == ("2", 5)
        assert send(2, sequence_id=1) == ("1", 3)
        assert send(3, sequence_id=1, sequence_end=True) == ("1", 6)
        assert send(6, sequence_id=2, sequence_end=True) == ("2", 11)
        gone = ("renewed", "1")
        server.wait_until(lambda: server.index()[gone]["state"] == "UNAVAILABLE", "unloaded")


def test_a_stopping_server_lets_running_sequences_finish(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    write_accumulator(tmp_path, "oldest", strategy=OLDEST)
    server = serve(tmp_path)
    with grpcclient.InferenceServerClient(server.grpc) as client:
        assert one(grpcclient, client, "oldest", 1, sequence_id=1, sequence_start=True) == 1

        def refuses_new_ones() -> bool:
            flags = {"sequence_id": 2, "sequence_start": True, "sequence_end": True}
            try:
                one(grpcclient, client, "oldest", 1, **flags)
            except InferenceServerException as error:
                return "Server is stopping" in str(error)
            return False

        server.process.send_signal(signal.SIGTERM)
        server.wait_until(refuses_new_ones, "stopping")
        assert one(grpcclient, client, "oldest", 2, sequence_id=1, sequence_end=True) == 3
    assert server.process.wait(patience()) == 0
