"""The engine's process: its death, its silence and its end are seen at once and cost one engine."""

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from engine_processes import engines_of
from fault_room import metric
from llm_site import Call, caller, write_small_llm
from patience import patience
from serving import RunningServer

SILENT_S = round(patience(2), 1)
PROMPT = {"model": "small", "prompt": "Once upon a time", "temperature": 0}
CONFIG = f"""
backend: "llm"
parameters {{ key: "kv_cache_bytes" value {{ string_value: "16777216" }} }}
parameters {{ key: "dtype" value {{ string_value: "float32" }} }}
parameters {{ key: "max_model_len" value {{ string_value: "2048" }} }}
parameters {{ key: "num_threads" value {{ string_value: "1" }} }}
parameters {{ key: "heartbeat_timeout_s" value {{ string_value: "{SILENT_S:g}" }} }}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    write_small_llm(made, "small", CONFIG)
    return made


@pytest.fixture(scope="module")
def server(repository: Path, serve: Callable[..., RunningServer]) -> RunningServer:
    return serve(
        repository,
        "--model-control-mode=explicit",
        "--load-model=small",
        f"--exit-timeout-secs={patience()}",
    )


@pytest.fixture
def call(server: RunningServer) -> Iterator[Call]:
    """The model is well before and after each test."""
    server.wait_until(lambda: is_ready(server), "ready")
    yield caller(server)
    if server.process.poll() is None:
        server.wait_until(lambda: is_ready(server), "ready again")


def is_ready(server: RunningServer) -> bool:
    return server.get("/v2/models/small/ready")[0] == 200


def engines(server: RunningServer) -> list[psutil.Process]:
    return engines_of(server.process.pid)


class Stream(threading.Thread):
    """A long completion that is being read."""

    def __init__(self, server: RunningServer, max_tokens: int = 1500) -> None:
        super().__init__(daemon=True)
        self._url = f"http://{server.http}/v1/completions"
        self._body = json.dumps(
            {**PROMPT, "stream": True, "max_tokens": max_tokens, "ignore_eos": True}
        ).encode()
        self.begun = threading.Event()
        self.frames: list[str] = []
        self.ended_s = 0.0
        self.start()
        assert self.begun.wait(patience())

    def run(self) -> None:
        request = urllib.request.Request(self._url, self._body)
        with urllib.request.urlopen(request, timeout=patience(120)) as answer:
            for line in answer:
                if line.strip():
                    self.frames.append(line.decode().strip().removeprefix("data: "))
                    self.begun.set()
        self.ended_s = time.monotonic()


def greedy(call: Call) -> Any:
    reply = call("/v1/completions", {**PROMPT, "max_tokens": 5})
    assert reply.status == 200, reply.body
    return reply.json["choices"][0]["text"]


@pytest.mark.rows("O48")
def test_a_killed_engine_ends_its_streams_at_once_and_comes_back(
    server: RunningServer, call: Call
) -> None:
    before = greedy(call)
    streams = [Stream(server) for _ in range(2)]
    (engine,) = engines(server)
    killed_s = time.monotonic()
    engine.kill()
    server.wait_until(lambda: not is_ready(server), "not ready")
    server.wait_until(lambda: "signal 9" in told(server), "told why")
    assert not is_told_ready(server)
    for stream in streams:
        stream.join(patience())
        assert stream.ended_s - killed_s < patience(2)
        error = json.loads(stream.frames[-1])["error"]
        assert error["type"] == "ServiceUnavailableError"
        assert error["code"] == 503
        assert "small" in error["message"]
        assert "restarted" in error["message"]
        assert "[DONE]" not in stream.frames
    refused = call("/v1/completions", PROMPT)
    assert refused.status == 503
    assert refused.headers["retry-after"]
    server.wait_until(lambda: is_ready(server), "ready again")
    assert is_told_ready(server)
    assert told(server) == ""
    assert deaths(server, "signal") == 1
    assert greedy(call) == before
    assert len(engines(server)) == 1
    assert engines(server)[0].pid != engine.pid


def test_requests_without_a_stream_are_503_when_the_engine_dies(
    server: RunningServer, call: Call
) -> None:
    replies = []
    waiting = threading.Thread(
        target=lambda: replies.append(
            call("/v1/completions", {**PROMPT, "max_tokens": 1500, "ignore_eos": True})
        )
    )
    waiting.start()
    server.wait_until(lambda: "num_requests_running{" in server.metrics(), "counted")
    server.wait_until(lambda: running(server) == 1, "running")
    engines(server)[0].kill()
    waiting.join(patience())
    assert [(reply.status, reply.headers["retry-after"]) for reply in replies] == [(503, "1")]


def test_a_request_time_out_ends_the_work_and_answers_in_the_apis_form(
    server: RunningServer, call: Call
) -> None:
    document = {**PROMPT, "max_tokens": 1500, "ignore_eos": True}
    url = f"http://{server.http}/v1/completions"
    request = urllib.request.Request(
        url, json.dumps(document).encode(), {"x-request-timeout": "0.5"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=patience())
    with refused.value as answer:
        assert answer.code == 504
        error = json.load(answer)["error"]
    assert error["message"] == "the request was not answered within 0.5 s (x-request-timeout)"
    server.wait_until(lambda: running(server) == 0, "stopped generating")
    assert greedy(call)


def running(server: RunningServer) -> float:
    return sum(metric(server, "vllm:num_requests_running"))


def deaths(server: RunningServer, cause: str) -> float:
    return sum(metric(server, "trivet_model_process_deaths_total", cause=cause))


def told(server: RunningServer) -> str:
    """What the index says is wrong with the model."""
    return server.index()["small", "1"].get("reason", "")


def is_told_ready(server: RunningServer) -> bool:
    """What health, metrics and index say in one voice."""
    says = {
        server.get("/v2/health/ready")[0] == 200,
        server.get("/health")[0] == 200,
        metric(server, "trivet_model_ready", model="small") == [1.0],
        server.index()["small", "1"]["state"] == "READY",
    }
    assert len(says) == 1
    return says.pop()


def test_an_engine_that_does_not_answer_is_not_ready(server: RunningServer, call: Call) -> None:
    (engine,) = engines(server)
    engine.suspend()
    try:
        server.wait_until(lambda: not is_ready(server), "not ready")
    finally:
        engine.resume()
    server.wait_until(lambda: is_ready(server), "ready again")
    assert engines(server)[0].pid == engine.pid
    assert greedy(call)


def test_an_engine_that_stays_silent_is_killed_and_replaced(
    server: RunningServer, call: Call
) -> None:
    before = greedy(call)
    (engine,) = engines(server)
    stream = Stream(server)
    engine.suspend()
    stream.join(patience())
    error = json.loads(stream.frames[-1])["error"]
    assert (error["type"], error["code"]) == ("ServiceUnavailableError", 503)
    server.wait_until(lambda: f"no sign of life for {SILENT_S:g} s" in told(server), "told why")
    server.wait_until(lambda: is_ready(server), "ready again")
    assert deaths(server, "silent") == 1
    assert not engine.is_running()
    assert greedy(call) == before


@pytest.mark.slow  # what an unload and a hot reload show
def test_a_reload_lets_streams_finish_and_ends_the_old_engine(
    server: RunningServer, repository: Path, call: Call
) -> None:
    (old,) = engines(server)
    stream = Stream(server, max_tokens=800)
    changed = CONFIG + 'parameters { key: "max_num_seqs" value { string_value: "7" } }\n'
    (repository / "small" / "config.pbtxt").write_text(changed)
    assert call("/v2/repository/models/small/load", {}).status == 200
    stream.join(patience())
    assert stream.frames[-1] == "[DONE]"
    assert json.loads(stream.frames[-2])["choices"][0]["finish_reason"] == "length"
    server.wait_until(lambda: not old.is_running(), "old engine gone")
    assert len(engines(server)) == 1
    assert greedy(call)


def test_an_unload_lets_streams_finish_and_ends_the_engine(
    server: RunningServer, call: Call
) -> None:
    (old,) = engines(server)
    stream = Stream(server, max_tokens=800)
    assert call("/v2/repository/models/small/unload", {}).status == 200
    assert call("/v1/completions", PROMPT).status in (404, 503)
    stream.join(patience())
    assert stream.frames[-1] == "[DONE]"
    server.wait_until(lambda: not old.is_running(), "old engine gone")
    assert call("/v2/repository/models/small/load", {}).status == 200
    assert greedy(call)


def test_the_servers_sudden_death_leaves_no_engine(
    repository: Path, serve: Callable[..., RunningServer]
) -> None:
    mine = serve(repository)
    (engine,) = engines(mine)
    Stream(mine)
    os.kill(mine.process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs([engine], timeout=patience())
    assert alive == []


def test_sigterm_lets_streams_finish_and_the_server_ends_well(
    server: RunningServer, call: Call
) -> None:
    """The last of this module: it ends the server that the others use."""
    stream = Stream(server, max_tokens=800)
    replies = []
    unary = threading.Thread(
        target=lambda: replies.append(
            call("/v1/completions", {**PROMPT, "max_tokens": 800, "ignore_eos": True})
        )
    )
    unary.start()
    server.wait_until(lambda: running(server) == 2, "running both")
    server.process.send_signal(signal.SIGTERM)
    server.wait_until(lambda: any("draining" in line for line in server.output), "draining")
    stream.join(patience())
    unary.join(patience())
    assert stream.frames[-1] == "[DONE]"
    assert json.loads(stream.frames[-2])["choices"][0]["finish_reason"] == "length"
    assert [reply.status for reply in replies] == [200]
    assert server.process.wait(patience()) == 0
