"""Versions come and go while requests run: no request fails and none gets a wrong version."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import tritonclient.http as httpclient
from gated_models import Gate, write_gated
from patience import patience
from serving import RunningServer, adder_bytes, write_adder
from tritonclient.utils import InferenceServerException

Serve = Callable[..., RunningServer]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    write_adder(folder, "adder", 1)
    return folder


class Caller:
    """Calls the model without a pause and keeps every answer and error."""

    def __init__(self, server: RunningServer) -> None:
        self.answers: list[int] = []
        self.errors: list[str] = []
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpclient.InferenceServerClient(self._server.http) as client:
            while not self._stop.is_set():
                try:
                    self.answers.append(add(client))
                except InferenceServerException as error:
                    self.errors.append(error.message())


def add(client: Any, version: str = "") -> int:
    given = httpclient.InferInput("x", [1], "FP32")
    given.set_data_from_numpy(np.zeros(1, np.float32))
    return int(client.infer("adder", [given], model_version=version).as_numpy("y")[0])


@pytest.fixture
def server(serve: Serve, repository: Path) -> Iterator[RunningServer]:
    running = serve(repository)
    yield running
    assert running.stop() == 0


def test_a_dropped_version_is_served_and_a_removed_one_gives_way(
    server: RunningServer, repository: Path
) -> None:
    with Caller(server) as caller, httpclient.InferenceServerClient(server.http) as client:
        write_adder(repository, "adder", 2)
        server.wait_until(lambda: add(client) == 2, "served version 2")
        assert add(client, "2") == 2
        shutil.rmtree(repository / "adder" / "2")
        server.wait_until(lambda: add(client) == 1, "went back to version 1")
        assert add(client, "1") == 1
        with pytest.raises(InferenceServerException, match="version 2 is not found"):
            add(client, "2")
    assert caller.errors == []
    assert set(caller.answers) == {1, 2}


def test_files_copied_piece_by_piece_are_served_when_complete(
    server: RunningServer, repository: Path
) -> None:
    folder = repository / "adder" / "2"
    whole = adder_bytes(2)
    with Caller(server) as caller, httpclient.InferenceServerClient(server.http) as client:
        folder.mkdir()
        server.wait_until(lambda: ("adder", "2") in server.index(), "saw the empty version")
        with (folder / "model.onnx").open("wb") as file:
            for start in range(0, len(whole), 20):
                file.write(whole[start : start + 20])
                file.flush()
        server.wait_until(lambda: add(client) == 2, "served version 2")
    assert caller.errors == []
    assert set(caller.answers) == {1, 2}


def test_a_corrupt_version_leaves_the_last_good_one_and_says_why(
    server: RunningServer, repository: Path
) -> None:
    with Caller(server) as caller:
        folder = repository / "adder" / "2"
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"no model at all")
        entry = ("adder", "2")
        server.wait_until(
            lambda: server.index().get(entry, {}).get("state") == "UNAVAILABLE", "gave version 2 up"
        )
        assert server.index()[entry]["reason"]
        assert server.index()["adder", "1"]["state"] == "READY"
        assert server.is_ready()
        (folder / "model.onnx").write_bytes(adder_bytes(2))
        server.wait_until(lambda: server.index()[entry]["state"] == "READY", "took the repair")
    assert caller.errors == []
    assert set(caller.answers) <= {1, 2}


def test_a_replaced_file_is_served_without_a_gap(server: RunningServer, repository: Path) -> None:
    with Caller(server) as caller, httpclient.InferenceServerClient(server.http) as client:
        fresh = repository.parent / "fresh.onnx"
        fresh.write_bytes(adder_bytes(7))
        fresh.rename(repository / "adder" / "1" / "model.onnx")
        server.wait_until(lambda: add(client) == 7, "served the new file")
    assert caller.errors == []
    assert set(caller.answers) == {1, 7}


def test_a_broken_config_leaves_the_model_as_it_was(
    server: RunningServer, repository: Path
) -> None:
    with Caller(server) as caller:
        (repository / "adder" / "config.pbtxt").write_text("max_batch_size: 'many'\n")
        server.wait_until(lambda: bool(server.index()["adder", "1"].get("reason")), "noticed")
        assert "adder/config.pbtxt:1:17" in server.index()["adder", "1"]["reason"]
        (repository / "adder" / "config.pbtxt").unlink()
        server.wait_until(
            lambda: not server.index()["adder", "1"].get("reason"), "noticed the repair"
        )
    assert caller.errors == []


def test_models_come_and_go_with_their_folders(server: RunningServer, repository: Path) -> None:
    write_adder(repository, "second", 1)
    server.wait_until(lambda: ("second", "1") in server.index(), "found the new model")
    server.wait_until(lambda: server.index()["second", "1"]["state"] == "READY", "loaded it")
    (repository / "second").rename(repository / "renamed")
    server.wait_until(
        lambda: server.index().get(("renamed", "1"), {}).get("state") == "READY", "followed it"
    )
    server.wait_until(lambda: ("second", "1") not in server.index(), "forgot the old name")
    assert server.get("/v2/models/second/ready")[0] == 400


def test_a_vanished_repository_leaves_what_serves(server: RunningServer, repository: Path) -> None:
    away = repository.rename(repository.parent / "away")
    server.wait_until(lambda: any("cannot be read" in line for line in server.output), "noticed")
    with httpclient.InferenceServerClient(server.http) as client:
        assert add(client) == 1
    away.rename(repository)


def test_explicit_control_loads_and_unloads_on_request(serve: Serve, repository: Path) -> None:
    write_adder(repository, "other", 1)
    server = serve(repository, "--model-control-mode=explicit", "--load-model=adder")
    with httpclient.InferenceServerClient(server.http) as client:
        assert client.is_model_ready("adder")
        assert not client.is_model_ready("other")
        client.load_model("other")
        assert client.is_model_ready("other")
        client.unload_model("adder")
        with pytest.raises(InferenceServerException, match="'adder' has no available versions"):
            add(client)
        server.wait_until(
            lambda: server.index()["adder", "1"]["state"] == "UNAVAILABLE", "ended the model"
        )
        assert server.index()["adder", "1"]["reason"] == "unloaded"
        write_adder(repository, "adder", 5)
        client.load_model("adder")
        assert add(client) == 5
        with pytest.raises(InferenceServerException, match="failed to poll from model repository"):
            client.load_model("nothing")
        client.load_model("adder", config='{"max_batch_size": 0, "version_policy": {"all": {}}}')
        assert (add(client, "1"), add(client, "5")) == (1, 5)
    assert server.stop() == 0


def test_polling_finds_a_new_version(serve: Serve, repository: Path) -> None:
    server = serve(repository, "--model-control-mode=poll", "--repository-poll-secs=0.2")
    with httpclient.InferenceServerClient(server.http) as client:
        write_adder(repository, "adder", 2)
        server.wait_until(lambda: add(client) == 2, "found version 2")
    assert server.stop() == 0


def test_control_mode_none_ignores_changes(serve: Serve, repository: Path) -> None:
    server = serve(repository, "--model-control-mode=none")
    write_adder(repository, "second", 1)
    write_adder(repository, "adder", 2)
    with httpclient.InferenceServerClient(server.http) as client:
        assert add(client) == 1
        assert ("second", "1") not in server.index()
    assert server.stop() == 0


def test_a_failing_model_at_start_ends_the_server_unless_told_otherwise(
    serve: Serve, repository: Path
) -> None:
    broken = repository / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"")
    server = serve(repository, wait=False)
    assert server.process.wait(patience()) == 1
    server = serve(repository, "--exit-on-error=false", "--strict-readiness=false")
    with httpclient.InferenceServerClient(server.http) as client:
        assert add(client) == 1
    assert server.index()["broken", "1"]["state"] == "UNAVAILABLE"
    assert server.stop() == 0


def test_a_taken_port_is_a_clear_error(serve: Serve, repository: Path) -> None:
    first = serve(repository)
    second = serve(repository, f"--http-port={first.http_port}", wait=False)
    assert second.process.wait(patience()) == 1
    assert any(str(first.http_port) in line for line in second.output)
    assert first.stop() == 0


def test_classes_are_named_although_the_version_has_gone_meanwhile(
    serve: Serve, tmp_path: Path
) -> None:
    folder, gate = tmp_path / "shop", Gate(tmp_path / "gate")
    label = 'label_filename: "labels.txt"'
    write_gated(folder, "slow", gate, dims=3, max_batch_size=8, more_of_output=label)
    (folder / "slow/labels.txt").write_text("a\nb\nc\n")
    server = serve(folder)
    answers: list[Any] = []

    def classify() -> None:
        with httpclient.InferenceServerClient(server.http, network_timeout=patience()) as client:
            given = httpclient.InferInput("INPUT0", [1, 3], "FP32")
            given.set_data_from_numpy(np.array([[1, 3, 2]], np.float32))
            wanted = httpclient.InferRequestedOutput("OUTPUT0", class_count=1)
            answers.append(client.infer("slow", [given], outputs=[wanted]).as_numpy("OUTPUT0"))

    threads = [threading.Thread(target=classify) for _ in range(2)]
    with gate.shut():
        for thread in threads:
            thread.start()
        waiting = 'nv_inference_pending_request_count{model="slow",version="1"} 1'
        server.wait_until(lambda: waiting in server.metrics(), "one is computed, the other waits")
        shutil.rmtree(folder / "slow")
        server.wait_until(lambda: server.get("/v2/models/slow")[0] != 200, "the model has gone")
    for thread in threads:
        thread.join()
    assert [answer.tolist() for answer in answers] == [[[b"3.000000:1:b"]]] * 2
