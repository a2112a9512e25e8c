"""Business-logic scripting: Python models ask others, from the server and their own process."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from nested_models import BLS, EAGER, body, path, write_all, write_python
from patience import patience
from serving import RunningServer, write_adder
from trace_site import open_collector

Ask = Callable[..., list[float]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("nested"))


@pytest.fixture(scope="module")
def server(repository: Path, serve: Callable[..., RunningServer]) -> RunningServer:
    names = [folder.name for folder in repository.iterdir() if folder.name != "spare"]
    flags = [f"--load-model={name}" for name in names]
    return serve(repository, "--model-control-mode=explicit", *flags)


@pytest.fixture(params=["process", "none"])
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def infer(
    server: RunningServer, model: str, x: Any, command: str = "", **parameters: Any
) -> requests.Response:
    return requests.post(path(server, model), body(x, command, **parameters), timeout=patience())


@pytest.fixture
def ask(server: RunningServer, isolation: str) -> Ask:
    """Gives the scripting model a command; its answer, or the error's text as AssertionError."""

    def call(x: Any, command: str, **parameters: Any) -> list[float]:
        answer = infer(server, f"bls_{isolation}", x, command, **parameters).json()
        assert "error" not in answer, answer["error"]
        data: list[float] = answer["outputs"][0]["data"]
        return data

    return call


def failure(ask: Ask, x: Any, command: str, **parameters: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        ask(x, command, **parameters)
    return str(caught.value)


def marks(repository: Path) -> tuple[Path, Path]:
    """Files that the waiting model makes when it is cancelled and when it begins; none is there."""
    found = [repository / "mirror" / "1" / name for name in ("cancelled", "started")]
    for mark in found:
        mark.unlink(missing_ok=True)
    return found[0], found[1]


# -- answers -----------------------------------------------------------------------------------


def test_a_model_may_run_sequences_of_others(ask: Ask) -> None:
    for _ in range(2):
        assert ask([1, 2, 3], "sequence summing 7") == [1, 3, 6]
    assert ask([4, 5], "sequence summing_texts trip") == [4, 9]
    assert "must specify a non-zero or non-empty correlation ID" in failure(
        ask, [1, 2], "sequence summing 0"
    )


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("ask adder", [7]),  # the newest version adds 2
        ("ask adder@2", [7]),
        ("ask pair", [9]),
        ("chain adder 20", [45]),
        ("gather adder 8", [7, 8, 9, 10, 11, 12, 13, 14]),
        ("parameters adder", [7]),
        ("ready adder", [1]),
        ("ready adder 2", [1]),
        ("ready adder 3", [0]),
        ("ready nothing", [0]),
    ],
)
def test_models_ask_others(ask: Ask, command: str, wanted: list[float]) -> None:
    assert ask([5], command) == wanted


def test_decoupled_models_are_read_as_they_answer(ask: Ask) -> None:
    assert ask([4, 5, 6], "stream") == [4, 5, 6]
    assert ask([4, 5, 6], "astream") == [4, 5, 6]
    assert ask([4, 5, 6], "first") == [4]
    assert ask([4], "single") == [4]


def test_coroutines_ask_side_by_side(server: RunningServer, isolation: str) -> None:
    answer = infer(server, f"async_{isolation}", [5]).json()
    assert answer["outputs"][0]["data"] == [14]


def test_decoupled_models_pass_on_what_they_are_told(server: RunningServer, isolation: str) -> None:
    stream = requests.post(
        path(server, f"decoupled_{isolation}", "generate_stream"),
        json={"x": [3, 1, 2]},
        timeout=patience(),
    ).text
    found = [line.split('"y":')[1][:3] for line in stream.splitlines() if '"y"' in line]
    assert found == ["3.0", "1.0", "2.0"]


def test_threads_of_a_models_own_process_may_ask(server: RunningServer) -> None:
    answer = infer(server, "bls_process", [5], "threads adder 6").json()
    assert answer["outputs"][0]["data"] == [7, 8, 9, 10, 11, 12]


def test_threads_in_the_servers_process_are_told_why_not(server: RunningServer) -> None:
    answer = infer(server, "bls_none", [5], "threads adder 1").json()
    assert "shares the server's process" in answer["error"]


def test_callers_side_by_side_get_their_own_answers(server: RunningServer, isolation: str) -> None:
    def call(number: int) -> list[float]:
        answer = infer(server, f"bls_{isolation}", [number], "gather adder 3").json()
        data: list[float] = answer["outputs"][0]["data"]
        return data

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(call, range(64)))
    assert found == [[n + 2, n + 3, n + 4] for n in range(64)]


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_what_is_asked_is_in_the_trace_of_who_asks(
    tmp_path: Path, serve: Callable[..., RunningServer], isolation: str
) -> None:
    write_adder(tmp_path, "adder", 1)
    write_python(tmp_path, "bls", BLS, isolation=isolation)
    with open_collector() as collector:
        server = serve(
            tmp_path, "--trace-config=mode=opentelemetry", "--trace-config=rate=1",
            "--trace-config=level=TIMESTAMPS",
            f"--trace-config=opentelemetry,url={collector.url}",
            "--trace-config=opentelemetry,bsp_schedule_delay=50",
        )  # fmt: skip
        assert infer(server, "bls", [5], "traced adder").status_code == 200
        collector.wait(lambda c: any(span.name == "adder" for span in c.spans))
        collector.wait(lambda c: any(span.name == "bls" for span in c.spans))
        assert "adder" in collector.children(collector.named("bls"))


# -- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("ask nothing", "3: Request for unknown model: 'nothing' is not found"),
        ("ask adder@9", "2: Request for unknown model: 'adder' version 9 is not found"),
        ("ask spare", "'spare'"),
        ("single", "model 'repeat' sent 2 or more responses"),
        ("again", "is the request to 'bls_"),
        ("load nothing", "failed to load 'nothing'"),
        ("files", "files may hold 'config' only"),
        ("ready adder two", "model_version is 'two', not a number"),
    ],
)
def test_errors_are_in_the_response_and_say_what(ask: Ask, command: str, part: str) -> None:
    assert part in failure(ask, [4, 5], command)


def test_wrong_inputs_are_the_asking_models_error(ask: Ask) -> None:
    text = failure(ask, [1, 2, 3], "ask adder")
    assert text.startswith("3: ")
    assert "'x'" in text


def test_a_model_that_asks_itself_is_refused_at_once(
    server: RunningServer, isolation: str, ask: Ask
) -> None:
    start = time.monotonic()
    text = failure(ask, [1], f"ask bls_{isolation}")
    assert f"bls_{isolation} -> bls_{isolation}" in text
    assert "would wait for itself" in text
    assert time.monotonic() - start < patience(5)


def test_a_model_that_dies_is_an_error_and_comes_back(ask: Ask) -> None:
    assert "died while executing" in failure(ask, [-1], "ask mirror")
    assert ask([0], "ask mirror") == [0]


def test_an_asking_model_that_dies_leaves_the_asked_alone(
    server: RunningServer, repository: Path
) -> None:
    mark, started = marks(repository)
    pid = int(infer(server, "other", [0], "pid").json()["outputs"][0]["data"][0])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(infer, server, "other", [20], "ask mirror")
        _wait_for(started.exists)
        os.kill(pid, signal.SIGKILL)
        assert waiting.result().status_code == 503
    _wait_for(mark.exists)
    _wait_for(lambda: infer(server, "other", [5], "ask adder").status_code == 200)


def test_a_nested_time_out_ends_the_nested_request(ask: Ask, repository: Path) -> None:
    mark, _ = marks(repository)
    text = failure(ask, [600], f"ask mirror {int(patience(0.3) * 1e6)}")
    assert "model 'mirror' had not answered by the request's deadline" in text
    _wait_for(mark.exists)


def test_a_client_that_goes_cancels_what_was_asked_for_it(
    server: RunningServer, isolation: str, repository: Path
) -> None:
    mark, _ = marks(repository)
    with pytest.raises(requests.Timeout):
        requests.post(
            path(server, f"bls_{isolation}"), body([600], "ask mirror"), timeout=patience(0.3)
        )
    _wait_for(mark.exists)
    assert infer(server, f"bls_{isolation}", [5], "ask adder").json()["outputs"][0]["data"] == [7]


def test_initialize_cannot_ask(server: RunningServer, repository: Path, isolation: str) -> None:
    write_python(repository, f"eager_{isolation}", EAGER, isolation=isolation)
    url = f"http://{server.http}/v2/repository/models/eager_{isolation}/load"
    answer = requests.post(url, timeout=patience())
    assert answer.status_code == 400
    assert "while this model serves" in answer.json()["error"]


def test_a_server_that_stops_lets_what_is_asked_finish(
    tmp_path: Path, serve: Callable[..., RunningServer]
) -> None:
    repository = write_all(tmp_path)
    server = serve(repository)
    _, started = marks(repository)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(infer, server, "bls_process", [2], "ask mirror")
        _wait_for(started.exists)
        server.process.terminate()
        assert waiting.result().json()["outputs"][0]["data"] == [0]
    assert server.process.wait(patience()) == 0


# -- model control and memory ------------------------------------------------------------------


def test_models_load_and_unload_others(ask: Ask) -> None:
    assert ask([0], "ready spare") == [0]
    assert ask([0], "load spare") == [1]
    assert ask([5], "ask spare") == [6]
    assert ask([0], "unload spare") == [0]


def test_a_thousand_large_calls_leave_no_memory(server: RunningServer) -> None:
    before = infer(server, "bls_process", [0], "leak 100000 5").json()["outputs"][0]["data"]
    after = infer(server, "bls_process", [0], "leak 100000 1000").json()["outputs"][0]["data"]
    assert after[0] <= before[0] + 1
    assert after[1] <= before[1] + 1


def _wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + patience()
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
