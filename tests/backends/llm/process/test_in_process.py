"""An engine in a thread of the server, as one flag or a model's parameter asks: it serves alike."""

import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from engine_processes import engines_of
from llm_site import caller, write_llm, write_tiny_llm
from patience import patience
from serving import RunningServer

from trivet.backends.api import LoadFailed
from trivet.backends.llm.process.starting import start_engine
from trivet.backends.llm.settings import EngineSettings

PROMPT = {"model": "smollm2", "prompt": "The capital of France is", "temperature": 0}
CONFIG = (
    'backend: "llm"\nparameters { key: "kv_cache_bytes" value { string_value: "200000000" } }\n'
)
PARAMETER = 'parameters { key: "in_process" value { string_value: "true" } }\n'


def engines(server: RunningServer) -> list[psutil.Process]:
    return engines_of(server.process.pid)


@pytest.mark.parametrize(
    ("write", "config", "flags", "text"),
    [
        pytest.param(
            write_llm, CONFIG, ["--llm-in-process=true"], " Paris", marks=pytest.mark.slow
        ),
        (write_tiny_llm, CONFIG + PARAMETER, [], ""),
    ],
    ids=["flag", "parameter"],
)
def test_engine_in_a_thread_serves_as_one_in_a_process_does(
    tmp_path: Path,
    serve: Callable[..., RunningServer],
    write: Callable[[Path, str, str], Path],
    config: str,
    flags: list[str],
    text: str,
) -> None:
    write(tmp_path, "smollm2", config)
    control = ("--model-control-mode=explicit", "--load-model=smollm2")
    server = serve(tmp_path, *control, *flags)
    call = caller(server)
    reply = call("/v1/completions", {**PROMPT, "max_tokens": 4})
    assert reply.status == 200, reply.body
    assert reply.json["choices"][0]["text"].startswith(text)
    assert engines(server) == []
    assert call("/v2/repository/models/smollm2/unload", {}).status == 200
    assert call("/v1/completions", PROMPT).status in (404, 503)
    assert call("/v2/repository/models/smollm2/load", {}).status == 200
    assert call("/v1/completions", PROMPT).status == 200


def test_server_with_an_engine_in_a_thread_ends_with_0(
    tmp_path: Path, serve: Callable[..., RunningServer]
) -> None:
    write_tiny_llm(tmp_path, "smollm2", CONFIG)
    server = serve(tmp_path, "--llm-in-process=true")
    assert caller(server)("/v1/completions", {**PROMPT, "max_tokens": 2}).status == 200
    server.process.terminate()
    assert server.process.wait(patience()) == 0


def test_parameter_of_a_model_beats_the_flag(
    tmp_path: Path, serve: Callable[..., RunningServer]
) -> None:
    config = CONFIG + PARAMETER.replace("true", "false")
    write_tiny_llm(tmp_path, "smollm2", config)
    server = serve(tmp_path, "--llm-in-process=true")
    assert len(engines(server)) == 1


def test_model_that_cannot_be_loaded_leaves_no_thread(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"nothing")
    before = threading.active_count()
    with pytest.raises(LoadFailed):
        start_engine("broken", EngineSettings(str(tmp_path / "model.gguf"), in_process=True))
    for thread in threading.enumerate():
        if thread.name == "engine of broken":
            thread.join(patience())
    assert threading.active_count() == before


def test_hanging_up_ends_the_thread(tmp_path: Path) -> None:
    model = write_tiny_llm(tmp_path, "smollm2", CONFIG) / "1"
    settings = EngineSettings(str(model), kv_cache_bytes=50_000_000, in_process=True)
    before = set(threading.enumerate())
    engine = start_engine("smollm2", settings)
    assert engine.is_running()
    started = set(threading.enumerate()) - before
    assert len(started) >= 3  # it, its reader and its heart
    engine.kill()
    assert not engine.is_running()
    for thread in started:
        thread.join(patience())
    assert [thread.name for thread in started if thread.is_alive()] == []
