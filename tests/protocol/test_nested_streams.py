"""Python models that read what decoupled models answer: these do not run far ahead of them, and
nobody waits for ever."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from nested_models import body, path, write_config, write_python
from serving import RunningServer

MOST_AHEAD = 8
"""As `backends/python/model_api/readers.py` has it."""
COUNT = 40
PRODUCER = """
import os

import numpy as np
import triton_python_backend_utils as pb_utils

SIZE = 250_000


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            count = int(pb_utils.get_input_tensor_by_name(request, "x").as_numpy()[0])
            sender = request.get_response_sender()
            for number in range(count):
                if sender.is_cancelled():
                    break
                note("made", number + 1)
                y = np.full(SIZE if count > 1 else 1, number, np.float32)
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]))
            note("ended", count)
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def note(name, value):
    name = os.path.join(pb_utils.get_model_dir(), name)
    with open(name + ".new", "w") as file:
        file.write(str(value))
    os.replace(name + ".new", name)
"""
"""Responses of a megabyte, as many as it is told."""
ASYNC_PRODUCER = PRODUCER.replace("def execute", "async def execute")
READER = """
import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils


def make(model, count):
    x = pb_utils.Tensor("x", np.array([count], np.float32))
    return pb_utils.InferenceRequest(
        model_name=model, requested_output_names=["y"], inputs=[x])


def number_of(response):
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return response.output_tensors()[0].as_numpy()[0]


def wait_for_gate():
    open("GATE").close()


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        command = pb_utils.get_input_tensor_by_name(request, "COMMAND").as_numpy()[0].decode()
        word, *models = command.split()
        count = int(pb_utils.get_input_tensor_by_name(request, "x").as_numpy()[0])
        found = np.asarray(getattr(self, "do_" + word)(count, *models), np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", found)])

    def do_wait(self, count, model):
        responses = make(model, count).exec(decoupled=True)
        found = [number_of(next(responses))]
        wait_for_gate()
        return found + [number_of(each) for each in responses]

    def do_await(self, count, model):
        async def read():
            responses = await make(model, count).async_exec(decoupled=True)
            found = [number_of(await anext(responses))]
            await asyncio.to_thread(wait_for_gate)
            return found + [number_of(each) async for each in responses]
        return asyncio.run(read())

    def do_all(self, count, model):
        return [number_of(each) for each in make(model, count).exec(decoupled=True)]

    def do_stop(self, count, model):
        responses = make(model, count).exec(decoupled=True)
        found = [number_of(next(responses))]
        wait_for_gate()
        return found

    # -- what would wait for itself --

    def do_ask(self, count, model, other):
        responses = make(model, count).exec(decoupled=True)
        found = [number_of(next(responses))]
        number_of(make(other, 1).exec())
        return found + [number_of(each) for each in responses]

    def do_backwards(self, count, model, other):
        first, second = (make(each, count).exec(decoupled=True) for each in (model, other))
        found = [number_of(each) for each in second]
        return found + [number_of(each) for each in first]

    def do_forwards(self, count, model, other):
        first, second = (make(each, count).exec(decoupled=True) for each in (model, other))
        found = [number_of(each) for each in first]
        return found + [number_of(each) for each in second]

    def do_gather(self, count, model, other):
        async def read():
            asked = [make(each, count).async_exec(decoupled=True) for each in (model, other)]
            first, second = await asyncio.gather(*asked)
            found = [number_of(each) async for each in second]
            return found + [number_of(each) async for each in first]
        return asyncio.run(read())

    def do_task(self, count, model, other):
        async def read():
            responses = await make(model, count).async_exec(decoupled=True)
            found = [number_of(await anext(responses))]
            await asyncio.gather(make(other, 1).async_exec())
            return found + [number_of(each) async for each in responses]
        return asyncio.run(read())

    def do_thread(self, count, model, other):
        responses = make(model, count).exec(decoupled=True)
        found = [number_of(next(responses))]
        with ThreadPoolExecutor(1) as pool:
            number_of(pool.submit(make(other, 1).exec).result())
        return found + [number_of(each) for each in responses]
"""
RELAY = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            x = pb_utils.get_input_tensor_by_name(request, "x")
            asked = pb_utils.InferenceRequest(
                model_name="producer", requested_output_names=["y"], inputs=[x])
            for response in asked.exec(decoupled=True):
                sender.send(pb_utils.InferenceResponse(response.output_tensors()))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
PRODUCING_ENSEMBLE = """
platform: "ensemble"
input [{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }]
ensemble_scheduling { step [
  { model_name: "producer" input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } }
] }
"""
ASKING_STEP = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        y = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()[:1]
        asked = pb_utils.InferenceRequest(
            model_name="producer", requested_output_names=["y"],
            inputs=[pb_utils.Tensor("x", np.ones(1, np.float32))])
        assert not asked.exec().has_error()
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", y)])
"""
ASKING_ENSEMBLE = """
platform: "ensemble"
input [{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }]
ensemble_scheduling { max_inflight_requests: 1 step [
  { model_name: "FIRST" input_map { key: "x" value: "x" } output_map { key: "y" value: "t" } },
  { model_name: "asking" input_map { key: "x" value: "t" } output_map { key: "y" value: "y" } }
] }
"""
DECOUPLED = "model_transaction_policy { decoupled: true }\n"


def gate_of(repository: Path, reader: str) -> Path:
    """A pipe: who opens it to read waits for who opens it to write."""
    return repository.with_name(f"gate_of_{reader}")


def write_all(repository: Path, isolation: str) -> Path:
    for name, source in (
        ("producer", PRODUCER), ("coroutine", ASYNC_PRODUCER), ("relay", RELAY)
    ):  # fmt: skip
        write_python(repository, name, source, isolation=isolation, more=DECOUPLED)
    write_python(repository, "asking", ASKING_STEP, isolation=isolation)
    write_config(repository, "ensemble", PRODUCING_ENSEMBLE)
    for first in ("producer", "relay"):
        write_config(repository, f"from_{first}", ASKING_ENSEMBLE.replace("FIRST", first))
    for reader in ("process", "none"):
        gate = gate_of(repository, f"reader_{reader}")
        os.mkfifo(gate)
        source = READER.replace("GATE", str(gate))
        write_python(repository, f"reader_{reader}", source, isolation=reader)
    return repository


@pytest.fixture(scope="module", params=["process", "none"])
def repository(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its producers' isolation is the parameter."""
    return write_all(tmp_path_factory.mktemp("streams") / "models", str(request.param))


@pytest.fixture(scope="module")
def server(serve: Callable[..., RunningServer], repository: Path) -> RunningServer:
    return serve(repository, "--model-control-mode=none")


@pytest.fixture(params=["process", "none"])
def reader(request: pytest.FixtureRequest) -> str:
    return f"reader_{request.param}"


@pytest.fixture
def notes(repository: Path) -> Path:
    """Where the producer notes how far it is; nothing is there yet."""
    folder = repository / "producer" / "1"
    for name in ("made", "ended"):
        (folder / name).unlink(missing_ok=True)
    return folder


def read(server: RunningServer, reader: str, command: str, timeout_s: float = 60) -> list[float]:
    answer = requests.post(path(server, reader), body([COUNT], command), timeout=timeout_s).json()
    assert "error" not in answer, answer["error"]
    found: list[float] = answer["outputs"][0]["data"]
    return found


def number_in(note: Path) -> int:
    return int(note.read_text()) if note.exists() else 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def stays(note: Path, number: int) -> bool:
    """Whether it comes to that number and no further."""
    wait_for(lambda: number_in(note) >= number)
    threading.Event().wait(0.2)
    return number_in(note) == number


def open_gate(repository: Path, reader: str) -> None:
    gate_of(repository, reader).write_text("")


@pytest.mark.parametrize("command", ["wait producer", "await producer"])
def test_a_producer_is_no_further_ahead_than_its_reader_has_room(
    server: RunningServer, repository: Path, reader: str, notes: Path, command: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, server, reader, command)
        # Room is given by the half window: one that is read gives none yet. One waits to be sent.
        is_still = stays(notes / "made", MOST_AHEAD + 1)
        open_gate(repository, reader)
        assert reading.result() == list(range(COUNT))
    assert is_still
    assert number_in(notes / "made") == COUNT


@pytest.mark.parametrize("model", ["relay", "ensemble"])
def test_who_reads_through_others_holds_them_up_too(
    server: RunningServer, repository: Path, reader: str, notes: Path, model: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, server, reader, f"wait {model}")
        wait_for(lambda: number_in(notes / "made") > MOST_AHEAD)
        threading.Event().wait(0.2)
        num_made = number_in(notes / "made")
        open_gate(repository, reader)
        assert reading.result() == list(range(COUNT))
    # Each of the two on the way has its own window.
    assert num_made <= 2 * (MOST_AHEAD + 1)


def test_a_producer_is_cancelled_when_its_reader_stops(
    server: RunningServer, repository: Path, reader: str, notes: Path
) -> None:
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, server, reader, "stop producer")
        wait_for(lambda: number_in(notes / "made") == MOST_AHEAD + 1)
        open_gate(repository, reader)
        assert reading.result() == [0]
    wait_for((notes / "ended").exists)
    assert number_in(notes / "made") < COUNT


def test_a_producer_is_cancelled_when_the_client_goes_whose_reader_waits(
    server: RunningServer, repository: Path, reader: str, notes: Path
) -> None:
    with pytest.raises(requests.Timeout):
        read(server, reader, "wait producer", timeout_s=1)
    wait_for((notes / "ended").exists)
    assert number_in(notes / "made") < COUNT
    open_gate(repository, reader)


def test_two_readers_of_one_producer_are_served_one_after_the_other(
    server: RunningServer, repository: Path, notes: Path
) -> None:
    readers = ("reader_process", "reader_none")
    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(read, server, each, "wait producer") for each in readers]
        is_still = stays(notes / "made", MOST_AHEAD + 1)
        for each in readers:  # The second one comes to its gate when the first has gone through.
            pool.submit(open_gate, repository, each)
        assert [each.result() for each in reading] == [list(range(COUNT))] * 2
    assert is_still


@pytest.mark.parametrize("word", ["ask", "backwards", "forwards", "gather", "task"])
@pytest.mark.parametrize(
    "models",
    [
        "producer producer",
        "coroutine coroutine",
        "producer relay",
        "relay producer",
        "relay relay",
        "ensemble producer",
        "producer ensemble",
    ],
)
def test_a_reader_never_waits_for_a_producer_that_waits_for_it(
    server: RunningServer, reader: str, word: str, models: str
) -> None:
    found = read(server, reader, f"{word} {models}")
    assert found[-COUNT:] == list(range(COUNT))


def test_a_thread_of_the_reader_may_ask_the_producer(server: RunningServer) -> None:
    found = read(server, "reader_process", "thread producer producer")
    assert found == list(range(COUNT))


@pytest.mark.parametrize("first", ["producer", "relay"])
def test_a_later_step_may_ask_the_model_that_it_holds_up(
    server: RunningServer, reader: str, first: str
) -> None:
    assert read(server, reader, f"all from_{first}") == list(range(COUNT))
