"""Versions that take the traffic step by step, and go back by themselves, on a real server."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from patience import patience
from serving import RunningServer, adder_bytes, write_adder

Serve = Callable[..., RunningServer]
POLICY = """
[rollout]
steps = [20, 100]
bake_s = 0.5
min_samples = 5

[rollout.guards]
errors = 0
"""
SLOW = POLICY.replace("bake_s = 0.5", "bake_s = 600")


class Load:
    """A client that asks without end, and notes what it gets."""

    def __init__(self, server: RunningServer, model: str, pause_s: float = 0.0) -> None:
        self._url = f"http://{server.http}/v2/models/{model}/infer"
        self._pause_s = pause_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers: list[tuple[tuple[str, int], float]] = []
        """Of each request, who answered it ("": nobody knows) and the status, and when."""

    def _ask(self) -> None:
        document = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0]}]}
        with httpx.Client(timeout=patience()) as client:
            while not self._is_over.wait(self._pause_s):
                answer = client.post(self._url, json=document)
                version = answer.headers.get("x-trivet-version", "")
                self.answers.append(((version, answer.status_code), time.monotonic()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def server(serve: Serve, repository: Path) -> Iterator[RunningServer]:
    write_adder(repository, "calm", 1)
    running = serve(repository, f"--rollout-state={repository.parent / 'state'}")
    yield running
    assert running.stop() == 0


def put(server: RunningServer, repository: Path, name: str, policy: str) -> None:
    """A model whose version 1 serves, with a policy."""
    folder = repository / name
    folder.mkdir()
    (folder / "traffic.toml").write_text(policy)
    write_adder(repository, name, 1)
    server.wait_until(lambda: status(server, name).get("stable") == 1, f"{name} serves")


def status(server: RunningServer, name: str) -> dict[str, Any]:
    answer = httpx.get(f"http://{server.http}/v2/models/{name}/rollout", timeout=patience())
    found: dict[str, Any] = answer.json()
    return found


def command(server: RunningServer, name: str, verb: str, **given: object) -> httpx.Response:
    url = f"http://{server.http}/v2/models/{name}/rollout/{verb}"
    return httpx.post(url, json=given, timeout=patience())


def events(server: RunningServer, name: str) -> list[str]:
    url = f"http://{server.http}/v2/models/{name}/rollout/history"
    return [each["event"] for each in httpx.get(url, timeout=patience()).json()]


def wait_for(server: RunningServer, name: str, phase: str) -> None:
    server.wait_until(lambda: status(server, name).get("phase") == phase, f"{name} was {phase}")


def version_of(server: RunningServer, name: str) -> str:
    """Who answers a request that names none."""
    document = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0]}]}
    found: str = server.post(f"/v2/models/{name}/infer", document)["model_version"]
    return found


def test_a_dropped_version_takes_the_traffic_step_by_step(
    server: RunningServer, repository: Path
) -> None:
    put(server, repository, "good", POLICY)
    with Load(server, "good") as load:
        write_adder(repository, "good", 2)
        wait_for(server, "good", "promoted")

    assert events(server, "good") == ["adopted", "started", "began", "stepped", "promoted"]
    assert version_of(server, "good") == "2"
    assert {code for (_, code), _ in load.answers} == {200}
    server.wait_until(
        lambda: server.index()["good", "1"]["state"] == "UNAVAILABLE", "the first one is unloaded"
    )


def test_what_does_not_load_is_back_at_once_and_tried_again_with_other_files(
    server: RunningServer, repository: Path
) -> None:
    put(server, repository, "torn", POLICY)
    made = repository.parent / "torn-2"
    made.mkdir()
    (made / "model.onnx").write_bytes(b"no model")
    made.rename(repository / "torn/2")

    wait_for(server, "torn", "rolled back")
    assert "it did not load" in status(server, "torn")["refused"]["2"]
    assert server.index()["torn", "2"]["reason"].startswith("rolled back: it did not load")
    assert version_of(server, "torn") == "1"
    assert server.is_ready()

    (repository / "torn/2/model.onnx").write_bytes(adder_bytes(2))
    with Load(server, "torn"):
        wait_for(server, "torn", "promoted")
    assert status(server, "torn")["refused"] == {}


def test_what_is_worse_goes_back_by_itself_and_no_request_of_the_stable_version_fails(
    server: RunningServer, repository: Path
) -> None:
    put(server, repository, "bad", SLOW)
    with Load(server, "bad") as load:
        worse = write_adder(repository, "bad", 2)
        wait_for(server, "bad", "running")
        assert worse.exists()
        # A version of other inputs: every request that it gets fails.
        write_other(repository, "bad", 3)
        command(server, "bad", "abort", reason="another one is meant")
        wait_for(server, "bad", "rolled back")
        number = len(load.answers)

    found = status(server, "bad")
    assert found["refused"].keys() == {"2", "3"}
    assert "errors: " in found["refused"]["3"]
    assert "aborted: another one is meant" in found["refused"]["2"]
    assert all(code == 200 for (version, code), _ in load.answers if version == "1")
    assert all(code == 200 for (_, code), _ in load.answers[number + 1 :])


def write_other(repository: Path, name: str, version: int) -> None:
    """A version that takes an input of another name."""
    made = repository.parent / f"{name}-{version}"
    made.mkdir()
    (made / "model.onnx").write_bytes(adder_bytes(version, "z"))
    made.rename(repository / name / str(version))


def test_one_at_a_time_and_by_command(server: RunningServer, repository: Path) -> None:
    put(server, repository, "led", SLOW)
    write_adder(repository, "led", 2)
    wait_for(server, "led", "running")

    second = command(server, "led", "start")
    paused = command(server, "led", "pause")
    resumed = command(server, "led", "resume")
    promoted = command(server, "led", "promote")
    late = command(server, "led", "abort")

    assert second.status_code == 400
    assert "version 2 of model 'led' is being rolled out" in second.json()["error"]
    assert [each.json()["phase"] for each in (paused, resumed, promoted)] == [
        "paused",
        "running",
        "promoted",
    ]
    assert late.status_code == 404
    assert version_of(server, "led") == "2"


def test_killed_in_a_step_it_goes_on_there(serve: Serve, tmp_path: Path) -> None:
    repository, state = tmp_path / "models", tmp_path / "state"
    repository.mkdir()
    first = serve(repository, f"--rollout-state={state}", "--exit-on-error=false")
    put(first, repository, "led", SLOW)
    write_adder(repository, "led", 2)
    wait_for(first, "led", "running")
    journal = state / "rollouts.jsonl"
    first.wait_until(lambda: b'"began"' in journal.read_bytes(), "written down")
    first.process.kill()
    first.process.wait()

    second = serve(repository, f"--rollout-state={state}")
    found = status(second, "led")

    assert (found["phase"], found["candidate"], found["stable"]) == ("running", 2, 1)
    assert version_of(second, "led") in ("1", "2")
    assert command(second, "led", "abort").json()["phase"] == "aborted"
    assert second.stop() == 0
