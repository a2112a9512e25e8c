"""A model's process dies or hangs: that is told everywhere at once, costs its own requests only,
and it is started again by itself."""

import json
import os
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import psutil
import pytest
from cgroups import memory_group
from fault_load import bystanders, callers, is_refused_for_now, outcome
from fault_models import CRASH_MODEL, parameter, write_crash, write_model
from fault_room import Answer, Room, metric
from patience import patience
from serving import RunningServer

from trivet.protos import grpc_service_pb2 as pb

Serve = Callable[..., RunningServer]
MIB = 1 << 20
SILENT_S = round(patience(1), 1)
COMPUTING_S = round(patience(1.5), 1)
SHORT_LIMITS = parameter("heartbeat_timeout_s", SILENT_S) + parameter(
    "execute_timeout_s", COMPUTING_S
)


@pytest.fixture(scope="module")
def room(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    repository = tmp_path_factory.mktemp("supervised") / "models"
    repository.mkdir()
    write_model(repository, "good", inputs=[("INPUT0", "FP32", "4")])
    write_crash(repository)
    write_crash(repository, "calm")
    write_crash(repository, "limited", SHORT_LIMITS)
    write_crash(repository, "twins", "instance_group [{ count: 2 kind: KIND_CPU }]\n")
    room = Room(serve(repository, "--model-control-mode=explicit", "--load-model=*"), repository)
    yield room
    room.assert_unharmed()
    room.assert_settled()
    room.close()


@pytest.fixture
def bystanders_fare_well(room: Room) -> Iterator[None]:
    """Other models are asked over both protocols meanwhile, and no request of theirs fails."""
    with callers() as running:
        bystanders(running, room, ("calm", command("pid")))
        yield
    assert running.faults == []
    assert min(running.counts[name] for name in ("http", "grpc", "calm")) > 5


def command(text: str) -> bytes:
    given = {"name": "COMMAND", "shape": [1], "datatype": "BYTES", "data": [text]}
    return json.dumps({"inputs": [given]}).encode()


def run(room: Room, text: str, model: str = "crash") -> Answer:
    return room.post(f"/v2/models/{model}/infer", command(text))


def pid_of(room: Room, model: str = "crash") -> int:
    answer = run(room, "pid", model)
    assert answer.status == 200, answer
    return int(json.loads(answer.body)["outputs"][0]["data"][0])


def call(room: Room, text: str, model: str) -> "grpc.Future":
    message = pb.ModelInferRequest(model_name=model)
    message.inputs.add(name="COMMAND", datatype="BYTES", shape=[1]).contents.bytes_contents.append(
        text.encode()
    )
    stub = room.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    found: grpc.Future = stub.future(message.SerializeToString(), timeout=patience())
    return found


def deaths(room: Room, cause: str, model: str = "crash") -> float:
    name = "trivet_model_process_deaths_total"
    return sum(metric(room.server, name, model=model, cause=cause))


def is_told_ready(room: Room, model: str) -> set[bool]:
    """What each of the places that tell it says."""
    index = room.server.index()[model, "1"]["state"]
    grpc_says = pb.ModelReadyResponse.FromString(
        room.call("ModelReady", pb.ModelReadyRequest(name=model).SerializeToString())
    )
    return {
        room.server.get(f"/v2/models/{model}/ready")[0] == 200,
        room.server.get("/v2/health/ready")[0] == 200,
        grpc_says.ready,
        metric(room.server, "trivet_model_ready", model=model) == [1.0],
        index == "READY",
    }


@contextmanager
def held(room: Room, model: str = "crash") -> Iterator[None]:
    """A new process of the model does not come up before the end of the block."""
    hold = room.repository / model / "hold"
    hold.touch()
    try:
        yield
    finally:
        hold.unlink()


def assert_back(room: Room, old_pid: int, model: str = "crash") -> None:
    room.server.wait_until(lambda: is_told_ready(room, model) == {True}, "ready again")
    assert pid_of(room, model) != old_pid
    assert not psutil.pid_exists(old_pid)


@pytest.mark.usefixtures("bystanders_fare_well")
def test_a_killed_process_under_load_is_told_everywhere_and_fails_its_own_requests_at_once(
    room: Room, tmp_path: Path
) -> None:
    path, pid = tmp_path / "work", pid_of(room)
    with held(room), ThreadPoolExecutor(2) as pool:
        over_http = pool.submit(run, room, f"watch {path}")
        room.server.wait_until(Path(f"{path}.started").exists, "began")
        killed_s = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        answer = over_http.result()
        room.server.wait_until(lambda: is_told_ready(room, "crash") == {False}, "told")
        assert time.monotonic() - killed_s < patience(3)
        assert is_refused_for_now(answer)
        assert answer.error == (
            "model 'crash' instance crash_0 died while executing (signal 9); it is being restarted"
        )
        entry = room.server.index()["crash", "1"]
        assert entry["state"] == "UNAVAILABLE"
        assert "died (signal 9); it is being restarted" in entry["reason"]
        assert room.server.get("/v2/models/calm/ready")[0] == 200
    assert_back(room, pid)
    assert deaths(room, "signal") >= 1


def test_over_grpc_a_request_whose_process_dies_is_unavailable(room: Room, tmp_path: Path) -> None:
    path, pid = tmp_path / "work", pid_of(room)
    doomed = call(room, f"watch {path}", "crash")
    room.server.wait_until(Path(f"{path}.started").exists, "began")
    os.kill(pid, signal.SIGKILL)
    code, text = _failure(doomed)
    assert code == "UNAVAILABLE"
    assert "died while executing (signal 9)" in text
    assert_back(room, pid)


def _failure(doomed: "grpc.Future") -> tuple[str, str]:
    assert isinstance(doomed.exception(patience()), grpc.RpcError)
    return outcome(doomed)


@pytest.mark.usefixtures("bystanders_fare_well")
def test_a_stopped_process_is_not_ready_and_is_killed_after_its_heartbeat_timeout(
    room: Room,
) -> None:
    pid, before = pid_of(room, "limited"), deaths(room, "silent", "limited")
    with held(room, "limited"), ThreadPoolExecutor(1) as pool:
        os.kill(pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        doomed: Future[Answer] = pool.submit(run, room, "pid", "limited")
        room.server.wait_until(lambda: is_told_ready(room, "limited") == {False}, "told")
        assert time.monotonic() - stopped_s < patience(3)
        answer = doomed.result()
        assert time.monotonic() - stopped_s < SILENT_S + patience(3)
        assert is_refused_for_now(answer)
        assert (
            f"no sign of life for {SILENT_S:g} s, model parameter heartbeat_timeout_s"
            in answer.error
        )
    assert_back(room, pid, "limited")
    assert deaths(room, "silent", "limited") == before + 1


@pytest.mark.parametrize(
    ("hang", "cause", "words"),
    [
        (
            "spin",
            "timeout",
            f"it computed for {COMPUTING_S:g} s, model parameter execute_timeout_s",
        ),
        ("clutch", "silent", f"no sign of life for {SILENT_S:g} s"),
    ],
    ids=["a loop without end in model.py", "a call that never lets go of the GIL"],
)
@pytest.mark.usefixtures("bystanders_fare_well")
def test_a_hang_in_user_code_is_ended_like_a_death(
    room: Room, hang: str, cause: str, words: str
) -> None:
    pid, before = pid_of(room, "limited"), deaths(room, cause, "limited")
    answer = run(room, hang, "limited")
    assert is_refused_for_now(answer)
    assert words in answer.error
    assert_back(room, pid, "limited")
    assert deaths(room, cause, "limited") == before + 1


@pytest.mark.parametrize(
    ("death", "cause", "words"),
    [("segfault", "signal", "signal 11"), ("exit", "exit", "exit code 3")],
)
@pytest.mark.usefixtures("bystanders_fare_well")
def test_a_process_that_ends_itself_is_replaced_and_the_cause_is_counted(
    room: Room, death: str, cause: str, words: str
) -> None:
    pid, before = pid_of(room), deaths(room, cause)
    answer = run(room, death)
    assert is_refused_for_now(answer)
    assert f"died while executing ({words})" in answer.error
    assert_back(room, pid)
    assert deaths(room, cause) == before + 1


@pytest.mark.usefixtures("bystanders_fare_well")
def test_a_process_killed_for_its_memory_says_so(room: Room) -> None:
    pid, before = pid_of(room), deaths(room, "out_of_memory")
    with memory_group() as group:
        group.confine(pid, 256 * MIB)
        answer = run(room, f"eat {1024 * MIB}")
    assert is_refused_for_now(answer)
    assert "died while executing (signal 9, out of memory)" in answer.error
    assert_back(room, pid)
    assert deaths(room, "out_of_memory") == before + 1


def test_a_model_that_always_kills_its_process_is_refused_at_once_until_it_computes_again(
    room: Room,
) -> None:
    for _ in range(3):
        answer = run(room, "exit", "calm")
        assert answer.status == 503, answer
    answer = run(room, "pid", "calm")
    assert is_refused_for_now(answer)
    assert "has ended 3 times in a row without computing anything" in answer.error
    index = room.server.index()["calm", "1"]
    assert index["state"] == "UNAVAILABLE"
    assert "died (exit code 3)" in index["reason"]
    assert "after 3 failures in a row" in index["reason"]
    room.server.wait_until(lambda: run(room, "pid", "calm").status == 200, "came back")
    room.server.wait_until(lambda: is_told_ready(room, "calm") == {True}, "ready")


def test_while_one_instance_is_gone_the_other_one_gets_all_requests(room: Room) -> None:
    """None waits for the dead one, nor fails with it, although that is the one that is idle."""
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(run, room, "sleep 0.02", "twins") for _ in range(20)]
        pids = {int(json.loads(each.result().body)["outputs"][0]["data"][0]) for each in asked}
    assert len(pids) == 2
    dead, alive = pids
    with held(room, "twins"):
        os.kill(dead, signal.SIGKILL)
        # Whatever its cause is held for: a moment ago, a test had the kernel kill for memory.
        died = partial(metric, room.server, "trivet_model_process_deaths_total", model="twins")
        room.server.wait_until(lambda: sum(died()) == 1, "saw the death")
        with ThreadPoolExecutor(4) as pool:
            answering = [pool.submit(pid_of, room, "twins") for _ in range(40)]
            assert {each.result() for each in answering} == {alive}
        assert room.server.get("/v2/models/twins/ready")[0] == 200
    name = "nv_inference_request_failure"
    assert sum(metric(room.server, name, model="twins")) == 0


def test_a_model_that_cannot_be_started_again_costs_little_and_serves_once_it_is_mended(
    serve: Serve, models: Path
) -> None:
    """The server does not follow the folder: the broken file is found by the new process."""
    write_model(models, "good", inputs=[("INPUT0", "FP32", "4")])
    write_crash(models)
    server = serve(models, "--model-control-mode=none")
    room = Room(server, models)
    file = models / "crash" / "1" / "model.py"
    file.write_text("import os\nos._exit(7)\n")
    os.kill(pid_of(room), signal.SIGKILL)

    def reason() -> str:
        return server.index()["crash", "1"].get("reason", "")

    server.wait_until(lambda: "after 3 failures in a row in 2 s" in reason(), "told of the loop")
    assert "did not start" in reason()
    assert "exit code 7" in reason()
    before_s = cpu_s(server.process.pid)
    started_s = time.monotonic()
    answer = run(room, "pid")
    assert is_refused_for_now(answer)
    room.assert_unharmed()
    time.sleep(1.2)  # a part of the time is compared, not the time
    assert cpu_s(server.process.pid) - before_s < 0.4 * (time.monotonic() - started_s)
    file.write_text(CRASH_MODEL)
    server.wait_until(lambda: run(room, "pid").status == 200, "served again")
    assert server.index()["crash", "1"]["state"] == "READY"
    room.close()
    shutil.rmtree(models / "crash")
    assert server.stop() == 0


def cpu_s(pid: int) -> float:
    """CPU time of a process and those of its children that have ended."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


@pytest.mark.alone  # who else runs has objects of its own in /dev/shm
def test_a_server_that_is_killed_leaves_no_process_and_no_shared_memory(
    serve: Serve, models: Path, tmp_path: Path
) -> None:
    """Also where the process is in the middle of a large batch."""
    write_crash(models)
    before = set(Path("/dev/shm").iterdir())
    server = serve(models)
    started = Path(f"{tmp_path / 'work'}.started")
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert children
    with ThreadPoolExecutor(1) as pool:
        doomed = pool.submit(_hang, server, str(tmp_path / "work"))
        server.wait_until(started.exists, "began")
        server.process.kill()
        server.process.wait(patience())
        _, alive = psutil.wait_procs(children, timeout=patience())
        assert alive == []
        assert isinstance(doomed.exception(), OSError)
    assert set(Path("/dev/shm").iterdir()) <= before


def _hang(server: RunningServer, path: str) -> None:
    url = f"http://{server.http}/v2/models/crash/infer"
    urllib.request.urlopen(url, command(f"hang {path}"), timeout=patience())
