"""Python models that read what decoupled models answer: these do not run far ahead of them, and
nobody waits for ever."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest
import requests
from nested_models import body, path, write_config, write_python
from patience import patience
from serving import RunningServer

MOST_AHEAD = 8
"""As `backends/python/model_api/room.py` has it."""
COUNT = 30
LONG = 200
"""For who is held up: it takes seconds to come there in vain."""
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

    def do_gather(self, count, model, other):
        async def read():
            asked = [make(each, count).async_exec(decoupled=True) for each in (model, other)]
            first, second = await asyncio.gather(*asked)
            found = [number_of(each) async for each in second]
            return found + [number_of(each) async for each in first]
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
DECOUPLED = "model_transaction_policy { decoupled: true }\n"
RESOURCE = """
instance_group [{
  count: 1 kind: KIND_CPU
  rate_limiter { resources [{ name: "r" global: true count: 1 }] }
}]
"""


def gate_of(repository: Path, reader: str) -> Path:
    """A pipe: who opens it to read waits for who opens it to write."""
    return repository.with_name(f"gate_of_{reader}")


def write_all(repository: Path, isolation: str) -> Path:
    for name, source in (
        ("producer", PRODUCER), ("coroutine", ASYNC_PRODUCER), ("relay", RELAY)
    ):  # fmt: skip
        write_python(repository, name, source, isolation=isolation, more=DECOUPLED)
    write_config(repository, "ensemble", PRODUCING_ENSEMBLE)
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


def read(server: RunningServer, reader: str, command: str, count: int = COUNT) -> list[float]:
    answer = requests.post(path(server, reader), body([count], command), timeout=patience()).json()
    assert "error" not in answer, answer["error"]
    found: list[float] = answer["outputs"][0]["data"]
    return found


def number_in(note: Path) -> int:
    return int(note.read_text()) if note.exists() else 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + patience()
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def is_held_up(note: Path) -> bool:
    """Whether it goes on by a few of many only, once nobody reads."""
    wait_for(lambda: number_in(note) > MOST_AHEAD)
    threading.Event().wait(0.2)
    return number_in(note) < LONG // 2


def open_gate(repository: Path, reader: str) -> None:
    gate_of(repository, reader).write_text("")


@pytest.mark.parametrize("command", ["wait producer", "await producer"])
def test_a_producer_is_no_further_ahead_than_its_reader_has_room(
    server: RunningServer, repository: Path, reader: str, notes: Path, command: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, server, reader, command, LONG)
        is_held = is_held_up(notes / "made")
        open_gate(repository, reader)
        assert reading.result() == list(range(LONG))
    assert is_held
    assert number_in(notes / "made") == LONG


def test_who_reads_through_others_holds_them_up_too(
    server: RunningServer, repository: Path, reader: str, notes: Path
) -> None:
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, server, reader, "wait relay", LONG)
        is_held = is_held_up(notes / "made")
        open_gate(repository, reader)
        assert reading.result() == list(range(LONG))
    assert is_held


def test_a_producer_is_cancelled_when_its_reader_stops(
    server: RunningServer, repository: Path, reader: str, notes: Path
) -> None:
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, server, reader, "stop producer", LONG)
        wait_for(lambda: number_in(notes / "made") > MOST_AHEAD)
        open_gate(repository, reader)
        assert reading.result() == [0]
    wait_for((notes / "ended").exists)
    assert number_in(notes / "made") < LONG


def test_a_producer_is_cancelled_when_the_client_goes_whose_reader_waits(
    server: RunningServer, repository: Path, reader: str, notes: Path
) -> None:
    client = HTTPConnection(server.http, timeout=patience())
    client.request("POST", f"/v2/models/{reader}/infer", body([LONG], "wait producer"))
    wait_for(lambda: number_in(notes / "made") > MOST_AHEAD)
    client.close()
    wait_for((notes / "ended").exists)
    assert number_in(notes / "made") < LONG
    open_gate(repository, reader)


def test_two_readers_of_one_producer_are_served_one_after_the_other(
    server: RunningServer, repository: Path, notes: Path
) -> None:
    readers = ("reader_process", "reader_none")
    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(read, server, each, "wait producer", LONG) for each in readers]
        is_held = is_held_up(notes / "made")
        for each in readers:  # The second one comes to its gate when the first has gone through.
            pool.submit(open_gate, repository, each)
        assert [each.result() for each in reading] == [list(range(LONG))] * 2
    assert is_held


@pytest.mark.parametrize("word", ["ask", "gather"])
@pytest.mark.parametrize(
    "models", ["producer producer", "coroutine coroutine", "relay producer", "producer ensemble"]
)
def test_a_reader_that_waits_for_its_producer_gets_its_answer(
    server: RunningServer, reader: str, word: str, models: str
) -> None:
    found = read(server, reader, f"{word} {models}")
    assert found[-COUNT:] == list(range(COUNT))


def test_a_thread_of_the_reader_may_ask_the_producer(server: RunningServer) -> None:
    found = read(server, "reader_process", "thread producer producer")
    assert found == list(range(COUNT))


def test_two_readers_that_wait_for_each_others_producers_get_their_answers(
    server: RunningServer,
) -> None:
    with ThreadPoolExecutor(2) as pool:
        reading = [
            pool.submit(read, server, "reader_process", "ask producer coroutine"),
            pool.submit(read, server, "reader_none", "ask coroutine producer"),
        ]
        assert [each.result() for each in reading] == [list(range(COUNT))] * 2


def test_a_reader_gets_what_it_asks_though_its_producer_has_the_resource_for_it(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    repository = tmp_path / "models"
    for name in ("producer", "other"):
        write_python(repository, name, PRODUCER, isolation="none", more=DECOUPLED + RESOURCE)
    write_python(repository, "reader", READER, isolation="none")
    limited = serve(repository, "--model-control-mode=none", "--rate-limit=execution_count")
    assert read(limited, "reader", "ask producer other") == list(range(COUNT))
