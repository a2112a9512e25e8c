"""A server over the small language model, and plain HTTP requests to it."""

import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from heard import hear
from patience import patience
from serving import RunningServer, start_server
from small_llm import HEAD_SIZE, KV_HEADS, LAYERS, write_small_gguf

REPOSITORY = Path(__file__).resolve().parents[1] / "model_repository"
_SHARED = """
backend: "llm"
parameters {{ key: "kv_cache_bytes" value {{ string_value: "{cache_bytes}" }} }}
parameters {{ key: "dtype" value {{ string_value: "float32" }} }}
parameters {{ key: "num_threads" value {{ string_value: "1" }} }}
"""
REAL_LLM = _SHARED.format(cache_bytes=9216 * 2 * 30 * 3 * 64 * 4)
SMALL_LLM = _SHARED.format(cache_bytes=9216 * 2 * LAYERS * KV_HEADS * HEAD_SIZE * 4)
"""Room for 9216 tokens. In float32, equal prompts give equal texts whatever shares their steps. One
thread, since other tests run meanwhile."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """Of a stream."""
        lines = self.body.decode().split("\n\n")
        assert lines.pop() == ""
        # Where the machine is slow.
        lines = [line for line in lines if line != ": keep-alive"]
        assert all(line.startswith("data: ") for line in lines)
        return [json.loads(line.removeprefix("data: ")) for line in lines]


class Call(Protocol):
    """A request."""

    def __call__(self, path: str, body: object = None, **headers: str) -> Reply:
        """By path and JSON body (or bytes); GET without one."""


@contextmanager
def open_models(*names: str) -> Iterator[RunningServer]:
    """Serves some of the example models; skips the test where their weights are not there."""
    for name in names:
        if not any(path.suffix in (".gguf", ".onnx", ".py") for path in _files(name)):
            pytest.skip(f"no weights of {name}: run model_repository/build.py")
    flags = [f"--load-model={name}" for name in names]
    server = start_server(REPOSITORY, "--model-control-mode=explicit", *flags)
    try:
        yield server
    finally:
        server.end()


def write_llm(repository: Path, name: str, config: str) -> Path:
    """SmolLM2 under a name of the test's; skips the test where it is not there."""
    found = _smollm2()
    mine = _folder(repository, name, config) / "model.gguf"
    try:
        mine.hardlink_to(found.resolve())
    except OSError:  # another file system
        shutil.copyfile(found, mine)
    return repository / name


def write_small_llm(repository: Path, name: str, config: str) -> Path:
    """A random model with SmolLM2's tokenizer; skips the test where that is not there."""
    write_small_gguf(_folder(repository, name, config) / "model.gguf", _smollm2())
    return repository / name


def _smollm2() -> Path:
    found = next((REPOSITORY / "smollm2" / "1").glob("*.gguf"), None)
    if found is None:
        pytest.skip("no weights of smollm2: run model_repository/build.py")
    return found


def _folder(repository: Path, name: str, config: str) -> Path:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config)
    return repository / name / "1"


def write_tiny_llm(repository: Path, name: str, config: str) -> Path:
    """A random model of two layers: loaded in no time, and what it says makes no sense."""
    from paged_models import save_model  # loads transformers

    folder = repository / name
    save_model(folder / "1")
    (folder / "config.pbtxt").write_text(config)
    return folder


def engine_load(server: RunningServer) -> tuple[float, float, float]:
    """Running and waiting requests, and the part of the cache in use."""
    page = server.metrics()

    def value(name: str) -> float:
        found = re.search(rf"^vllm:{name}{{.*}} (\S+)$", page, re.MULTILINE)
        assert found is not None, page
        return float(found[1])

    return (
        value("num_requests_running"),
        value("num_requests_waiting"),
        value("kv_cache_usage_perc"),
    )


def _files(name: str) -> Iterator[Path]:
    return (REPOSITORY / name / "1").iterdir()


def caller(server: RunningServer) -> Call:
    """Requests to a server."""

    def send(path: str, body: object = None, **headers: str) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://{server.http}{path}",
            data=None if body is None else data,
            headers={"Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=patience()) as answer:
                reply = Reply(answer.status, _lower(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            reply = Reply(error.code, _lower(error.headers), error.read())
        hear(reply.status, text=reply.body, headers=reply.headers)
        return reply

    return send


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
