"""Two language models and an ordinary one in one server: each request gets the one it names."""

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from engine_processes import engines_of
from llm_site import Call, caller, write_llm
from patience import patience
from serving import RunningServer, start_server, write_adder

COMMON = 'backend: "llm"\nparameters { key: "num_threads" value { string_value: "1" } }\n'
PARAMETERS = {
    "large": {"kv_cache_bytes": "134217728", "max_model_len": "2048"},
    # 33 blocks: one sequence at a time, one more may wait.
    "small": {
        "dtype": "float32",
        "kv_cache_bytes": "24330240",
        "max_model_len": "512",
        "max_num_seqs": "1",
        "max_num_waiting": "1",
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository: Path = tmp_path_factory.mktemp("models")
    for name, parameters in PARAMETERS.items():
        lines = [
            f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
            for key, value in parameters.items()
        ]
        write_llm(repository, name, COMMON + "".join(lines))
    write_adder(repository, "adder", 1, amount=2)
    flags = [f"--load-model={name}" for name in ("large", "small", "adder")]
    opened = start_server(repository, "--model-control-mode=explicit", *flags)
    yield opened
    opened.end()


@pytest.fixture
def call(server: RunningServer) -> Call:
    return caller(server)


def engine_of(server: RunningServer, model: str) -> psutil.Process:
    """Its process."""
    (found,) = engines_of(server.process.pid, model)
    return found


def body(name: str, **more: Any) -> dict[str, Any]:
    prompt = f"The {name} house is"
    return {"model": name, "prompt": prompt, "temperature": 0, "ignore_eos": True, **more}


class Stream(threading.Thread):
    """A completion that is read as it comes."""

    def __init__(self, server: RunningServer, name: str, max_tokens: int) -> None:
        super().__init__(daemon=True)
        data = json.dumps(body(name, stream=True, max_tokens=max_tokens)).encode()
        self._request = urllib.request.Request(f"http://{server.http}/v1/completions", data)
        self.chunks: list[Any] = []
        self.times_s: list[float] = []
        self.last = ""
        self.begun = threading.Event()
        self.leaves = threading.Event()
        self.start()

    def run(self) -> None:
        with urllib.request.urlopen(self._request, timeout=patience(120)) as answer:
            for line in answer:
                # Others are the blank ones, and comments where the machine is slow.
                if not line.startswith(b"data: "):
                    continue
                self.times_s.append(time.monotonic())
                self.last = line.decode().strip().removeprefix("data: ")
                if self.last != "[DONE]":
                    self.chunks.append(json.loads(self.last))
                self.begun.set()
                if self.leaves.is_set():
                    return

    @property
    def text(self) -> str:
        return "".join(chunk["choices"][0]["text"] for chunk in self.chunks)


def add(call: Call) -> list[float]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}
    reply = call("/v2/models/adder/infer", {"inputs": [tensor]})
    assert reply.status == 200
    values: list[float] = reply.json["outputs"][0]["data"]
    return values


def test_both_language_models_are_listed_and_no_other(call: Call) -> None:
    models = {each["id"]: each["max_model_len"] for each in call("/v1/models").json["data"]}
    assert models == {"large": 2048, "small": 512}


def test_streams_of_both_and_the_ordinary_model_run_at_once(
    server: RunningServer, call: Call
) -> None:
    alone = {}
    for name in ("large", "small"):
        reply = call("/v1/completions", body(name, max_tokens=40))
        alone[name] = reply.json["choices"][0]["text"]
    streams = {name: Stream(server, name, 40) for name in ("large", "small")}
    sums = []
    while any(stream.is_alive() for stream in streams.values()):
        sums.append(add(call))
    for name, stream in streams.items():
        assert stream.text == alone[name]
        assert {chunk["model"] for chunk in stream.chunks} == {name}
        assert stream.last == "[DONE]"
    assert len(sums) > 5
    assert sums == [[3.0]] * len(sums)
    first, second = (stream.times_s for stream in streams.values())
    assert first[0] < second[-1]
    assert second[0] < first[-1]


@pytest.mark.parametrize("name", ["adder", "medium"])
def test_models_that_are_not_there_or_generate_nothing_are_404(call: Call, name: str) -> None:
    for path, rest in (
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
    ):
        reply = call(path, {"model": name, **rest})
        assert reply.status == 404
        error = reply.json["error"]
        assert (error["type"], error["param"], error["code"]) == ("NotFoundError", "model", 404)
        assert name in error["message"]
    assert call(f"/v1/models/{name}").status == 404


def test_requests_that_name_none_are_told_the_names(call: Call) -> None:
    reply = call("/generate", {"inputs": "a"})
    assert reply.status == 422
    assert "large, small" in reply.json["error"]
    named = {"inputs": "a", "model": "small", "parameters": {"max_new_tokens": 1}}
    assert call("/generate", named).status == 200
    assert call("/tokenize", {"prompt": "a"}).status == 404


@pytest.mark.rows("O47a", "O47b")
def test_one_that_is_full_refuses_at_once_and_the_other_goes_on(
    server: RunningServer, call: Call
) -> None:
    running = Stream(server, "small", 400)
    assert running.begun.wait(patience())
    waiting = Stream(server, "small", 1)
    page = 'vllm:num_requests_waiting{engine="0",model_name="small"} 1'
    server.wait_until(lambda: page in server.metrics(), "waiting")
    refused = call("/v1/completions", body("small", max_tokens=1))
    assert refused.status == 503
    assert refused.json["error"]["type"] == "ServiceUnavailableError"
    assert int(refused.headers["retry-after"]) >= 1
    tgi = call("/generate", {"inputs": "a", "model": "small"})
    assert (tgi.status, tgi.json["error_type"]) == (429, "overloaded")
    assert page in server.metrics(), "it has waited until there was room"
    # The engine is not asked: it may be in a long step.
    engine = engine_of(server, "small")
    engine.suspend()
    try:
        assert call("/v1/completions", body("small", max_tokens=1)).status == 503
    finally:
        engine.resume()
    assert call("/v1/completions", body("large", max_tokens=1)).status == 200
    running.leaves.set()
    running.join(patience(120))
    waiting.join(patience(120))
    assert waiting.last == "[DONE]"


def test_unloading_one_leaves_the_streams_of_the_other(server: RunningServer, call: Call) -> None:
    alone = call("/v1/completions", body("large", max_tokens=60)).json["choices"][0]["text"]
    stream = Stream(server, "large", 60)
    assert stream.begun.wait(patience())
    assert call("/v2/repository/models/small/unload", {}).status == 200
    gone = call("/v1/completions", body("small", max_tokens=1))
    assert gone.status == 404
    assert gone.json["error"]["param"] == "model"
    stream.join(patience(120))
    assert (stream.text, stream.last) == (alone, "[DONE]")
    assert add(call) == [3.0]
    assert [each["id"] for each in call("/v1/models").json["data"]] == ["large"]
