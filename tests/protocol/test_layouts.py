"""Models that lie otherwise than NAME/VERSION/FILE, while the server runs; and what is no model."""

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import RunningServer, adder_bytes, start_server

from trivet.server.repository.layout import EMPTY


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def open_server(repository: Path) -> Iterator[Callable[..., RunningServer]]:
    servers: list[RunningServer] = []

    def start(*flags: str) -> RunningServer:
        servers.append(start_server(repository, "--repository-poll-secs=0.3", *flags))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def put(path: Path, content: bytes) -> None:
    """At once, as a copy tool that renames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.parent / ".being-copied"
    made.write_bytes(content)
    made.rename(path)


def add_to(server: RunningServer, name: str, value: float) -> float | None:
    """The model's answer; None where nobody answers."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [value]}
    try:
        answer = server.post(f"/v2/models/{name}/infer", {"inputs": [tensor]})
    except urllib.error.HTTPError as error:
        error.close()
        return None
    found: float = answer["outputs"][0]["data"][0]
    return found


def reason(server: RunningServer, name: str) -> str:
    return next(
        (entry["reason"] for (found, _), entry in server.index().items() if found == name), ""
    )


@pytest.mark.parametrize("mode", ["watch", "poll"])
def test_a_lone_file_is_added_replaced_and_removed_while_the_server_runs(
    repository: Path, open_server: Callable[..., RunningServer], mode: str
) -> None:
    server = open_server(f"--model-control-mode={mode}")

    put(repository / "add.v2.onnx", adder_bytes(1.0))
    server.wait_until(lambda: add_to(server, "add.v2", 1.0) == 2.0, "serving the file")
    assert server.index()["add.v2", "1"]["state"] == "READY"
    put(repository / "add.v2.onnx", adder_bytes(5.0))
    server.wait_until(lambda: add_to(server, "add.v2", 1.0) == 6.0, "serving the other file")
    (repository / "add.v2.onnx").unlink()
    server.wait_until(lambda: add_to(server, "add.v2", 1.0) is None, "rid of the file")

    assert server.is_ready()


def test_a_folder_without_a_version_folder_is_version_1_and_the_log_says_so(
    repository: Path, open_server: Callable[..., RunningServer]
) -> None:
    put(repository / "flat" / "net.onnx", adder_bytes(1.0))
    server = open_server()

    assert add_to(server, "flat", 1.0) == 2.0
    assert any("'flat' has no version folder: its files are" in line for line in server.output)
    config = json.loads(server.get("/v2/models/flat/config")[1])
    assert config["default_model_filename"] == "net.onnx"

    put(repository / "flat" / "net.onnx", adder_bytes(3.0))
    server.wait_until(lambda: add_to(server, "flat", 1.0) == 4.0, "serving the replaced file")
    put(repository / "flat" / "2" / "model.onnx", adder_bytes(7.0))
    server.wait_until(lambda: add_to(server, "flat", 1.0) == 8.0, "serving the version folder")
    shutil.rmtree(repository / "flat")
    server.wait_until(lambda: add_to(server, "flat", 1.0) is None, "rid of the folder")


def test_an_empty_repository_says_so_and_is_ready(
    repository: Path, open_server: Callable[..., RunningServer]
) -> None:
    (repository / "README.md").write_text("nothing to serve")
    server = open_server()

    assert server.is_ready()
    assert server.index()["", ""]["reason"] == EMPTY
    server.wait_until(lambda: "repository:" in "".join(server.output), "through with its banner")
    log, _, banner = "".join(server.output).partition("service")
    assert EMPTY in log
    assert "the model repository holds no model" in banner

    put(repository / "a.onnx", adder_bytes(1.0))
    server.wait_until(lambda: add_to(server, "a", 1.0) == 2.0, "serving the first model")
    assert ("", "") not in server.index()


def test_what_is_no_model_is_named_and_harms_nobody(
    repository: Path, open_server: Callable[..., RunningServer]
) -> None:
    put(repository / "good" / "1" / "model.onnx", adder_bytes(1.0))
    put(repository / "weights.pth", b"PK\x03\x04")
    put(repository / "photo" / "model_index.json", b'{"_class_name": "FluxPipeline"}')
    server = open_server()

    assert server.is_ready()
    assert add_to(server, "good", 1.0) == 2.0
    assert "torch.export.save" in reason(server, "weights.pth")
    assert "a diffusers pipeline (FluxPipeline)" in reason(server, "photo")
    assert any("'photo' is not taken for a model: 'model_index" in each for each in server.output)

    (repository / "weights.pth").unlink()
    put(repository / "photo" / "model.onnx", adder_bytes(2.0))
    server.wait_until(lambda: add_to(server, "photo", 1.0) == 3.0, "serving what has come")
    server.wait_until(lambda: not reason(server, "weights.pth"), "rid of the stranger")
    (repository / "photo" / "model.onnx").unlink()
    server.wait_until(lambda: "FluxPipeline" in reason(server, "photo"), "a stranger again")
    assert add_to(server, "photo", 1.0) is None
    assert server.is_ready()


def test_explicit_mode_loads_lone_files_and_says_why_not(
    repository: Path, open_server: Callable[..., RunningServer]
) -> None:
    put(repository / "one.onnx", adder_bytes(1.0))
    put(repository / "weights.pth", b"PK\x03\x04")
    server = open_server("--model-control-mode=explicit", "--load-model=one")

    assert add_to(server, "one", 1.0) == 2.0
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.post("/v2/repository/models/weights.pth/load", {})
    with refused.value as answer:
        assert "torch.export.save" in json.load(answer)["error"]


@pytest.mark.slow
def test_the_folder_of_one_model_is_served_under_its_name(tmp_path: Path) -> None:
    from paged_models import save_model

    server = start_server(save_model(tmp_path / "small-llama"))
    try:
        body = {"model": "small-llama", "prompt": "the", "max_tokens": 2}
        assert server.post("/v1/completions", body)["choices"][0]["finish_reason"] == "length"
    finally:
        server.end()


def test_two_that_would_have_one_name_are_named(
    repository: Path, open_server: Callable[..., RunningServer]
) -> None:
    put(repository / "a" / "1" / "model.onnx", adder_bytes(1.0))
    put(repository / "a.onnx", adder_bytes(2.0))
    server = open_server("--exit-on-error=false", "--strict-readiness=false")

    assert "model 'a' is there twice" in reason(server, "a")
