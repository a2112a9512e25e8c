"""What isolation promises: data arrives unharmed, a crash stays in its process."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from patience import patience
from python_models import Maker, make_config, make_request, outputs_of, run, run_decoupled

from trivet.backends.api import (
    BackendFailed,
    Batch,
    CheckedRequest,
    Instance,
    InstanceDied,
    LoadFailed,
    ModelFiles,
    Placement,
    Unavailable,
)
from trivet.backends.api.value import changed
from trivet.backends.process import open_isolated
from trivet.backends.process.instance import ProcessInstance
from trivet.protos.model_config_pb2 import ModelConfig

CONTROLLED = """
import ctypes, signal
class TritonPythonModel:
    def execute(self, requests):
        word = requests[0].request_id()
        if word == "exit":
            os._exit(3)
        if word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "segfault":
            ctypes.string_at(0)
        if word == "sys.exit":
            raise SystemExit(5)
        if word == "wait":
            open(os.path.join(pb_utils.get_model_dir(), "started"), "w").close()
            while not requests[0].is_cancelled():
                time.sleep(0.001)
            raise pb_utils.TritonModelException("saw the cancellation")
        reply = np.array([os.getpid()], np.int64)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", reply)]) for _ in requests]
"""


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + patience()
    while not (is_met := condition()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return is_met


def ask(word: str = "") -> CheckedRequest:
    return changed(make_request(IN=np.zeros(1, np.float32)), id=word)


def open_controlled(maker: Maker, source: str = CONTROLLED) -> ProcessInstance:
    instance = maker.open(source, make_config("IN:FP32", ">OUT:INT64"))
    assert isinstance(instance, ProcessInstance)
    return instance


def pid_of(instance: ProcessInstance) -> int:
    pid = instance.pid
    assert pid is not None
    return pid


def is_gone(pid: int) -> bool:
    """Whether no process has the number, not even a zombie."""
    return not Path(f"/proc/{pid}").exists()


def test_what_a_process_has_loaded_is_left_alone_by_its_collector(maker: Maker) -> None:
    source = CONTROLLED.replace("os.getpid()", "gc.get_freeze_count()")
    instance = open_controlled(maker, source.replace("ctypes, signal", "ctypes, gc, signal"))
    assert outputs_of(run(instance, ask()))["OUT"][0] > 1000


@pytest.mark.parametrize(
    ("word", "how"),
    [
        ("exit", "exit code 3"),
        ("kill", "signal 9"),
        ("segfault", "signal 11"),
        ("sys.exit", "exit code 5"),
    ],
)
def test_a_crash_fails_its_batch_at_once_and_the_next_one_is_computed(
    maker: Maker, word: str, how: str
) -> None:
    instance = open_controlled(maker)
    first_pid = pid_of(instance)
    with pytest.raises(InstanceDied) as died:
        run(instance, ask(word))
    assert died.value.message == (
        f"model 'm' instance m_0_0 died while executing ({how}); it is being restarted"
    )
    second_pid = outputs_of(run(instance, ask()))["OUT"][0]
    assert second_pid != first_pid
    assert instance.is_ready()
    assert is_gone(first_pid)


def test_a_process_that_talks_nonsense_is_replaced(maker: Maker) -> None:
    source = CONTROLLED.replace(
        "        if word ==",
        """        if word == "nonsense":
            for fd in os.listdir("/proc/self/fd"):
                path = "/proc/self/fd/" + fd
                if os.path.exists(path) and os.readlink(path).startswith("socket:"):
                    os.write(int(fd), bytes([255]) * 64)
            time.sleep(600)
        if word ==""",
        1,
    )
    instance = open_controlled(maker, source)
    pid = pid_of(instance)
    with pytest.raises(InstanceDied):
        run(instance, ask("nonsense"))
    assert outputs_of(run(instance, ask()))["OUT"][0] != pid
    assert is_gone(pid)


def test_a_process_killed_while_idle_is_not_ready_until_it_is_back(maker: Maker) -> None:
    instance = open_controlled(maker)
    os.kill(pid_of(instance), signal.SIGKILL)
    assert eventually(lambda: not instance.is_ready())
    assert eventually(instance.is_ready)


def test_a_batch_for_a_process_that_is_just_gone_is_computed_by_the_next_one(maker: Maker) -> None:
    instance = open_controlled(maker)
    pid = pid_of(instance)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: is_gone(pid))
    assert outputs_of(run(instance, ask()))["OUT"][0] != pid


def test_open_requests_of_a_decoupled_model_end_with_the_process(maker: Maker) -> None:
    source = """
    class TritonPythonModel:
        def execute(self, requests):
            self.sender = requests[0].get_response_sender()
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP32", decoupled=True))
    assert isinstance(instance, ProcessInstance)
    (recorder,) = run_decoupled(instance, ask())
    os.kill(pid_of(instance), signal.SIGKILL)
    recorder.await_end()
    assert isinstance(recorder.error, InstanceDied)


def test_open_requests_of_a_decoupled_model_end_when_it_is_closed(maker: Maker) -> None:
    source = """
    class TritonPythonModel:
        def execute(self, requests):
            self.sender = requests[0].get_response_sender()
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP32", decoupled=True))
    (recorder,) = run_decoupled(instance, ask())
    maker.close(instance)
    recorder.await_end()
    assert isinstance(recorder.error, Unavailable)


def test_a_model_that_cannot_be_restarted_answers_after_a_bounded_wait(maker: Maker) -> None:
    from trivet.backends.process.instance import Limits
    from trivet.backends.process.task import Task

    source = """
    class TritonPythonModel:
        def initialize(self, args):
            path = args["model_repository"] + "/started"
            if os.path.exists(path):
                raise ValueError("only once")
            open(path, "w").close()
        def execute(self, requests):
            os._exit(1)
    """
    config = make_config("IN:FP32", ">OUT:FP32")
    config.parameters["isolation"].string_value = "none"
    placement = Placement("m_0_0", "KIND_CPU", 0, 1)
    task = Task("python", config, maker.files(source), placement, 30)
    instance = ProcessInstance.open(task, Limits(restart_wait_s=0.2))
    try:
        with pytest.raises(InstanceDied, match="died while executing"):
            run(instance, ask())
        with pytest.raises(InstanceDied, match=r"was not back after 0\.2 s"):
            run(instance, ask())
        assert not instance.is_ready()
    finally:
        instance.close()


def test_user_code_sees_the_cancellation(maker: Maker) -> None:
    instance = open_controlled(maker)
    request = ask("wait")
    errors: list[str] = []

    def execute() -> None:
        try:
            run(instance, request)
        except BackendFailed as error:
            errors.append(error.message)

    thread = threading.Thread(target=execute)
    thread.start()
    started = maker.files(CONTROLLED).version_dir / "started"
    assert eventually(started.exists)
    request.cancel.cancel()
    thread.join(patience())
    assert errors == ["saw the cancellation"]


def test_a_request_cancelled_beforehand_arrives_cancelled(maker: Maker) -> None:
    instance = open_controlled(maker)
    request = ask("wait")
    request.cancel.cancel()
    with pytest.raises(Exception, match="saw the cancellation"):
        run(instance, request)


def test_a_decoupled_request_sees_the_cancellation_after_execute_has_returned(
    maker: Maker,
) -> None:
    source = """
    class TritonPythonModel:
        def execute(self, requests):
            threading.Thread(target=self.run, args=(requests[0].get_response_sender(),)).start()
        def run(self, sender):
            while not sender.is_cancelled():
                time.sleep(0.001)
            error = pb_utils.TritonError("stopped", pb_utils.TritonError.CANCELLED)
            sender.send(pb_utils.InferenceResponse(error=error),
                        flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP32", decoupled=True))
    request = ask()
    (recorder,) = run_decoupled(instance, request)
    request.cancel.cancel()
    recorder.await_end()
    assert recorder.error is not None
    assert recorder.error.message == "stopped"


def test_a_model_that_hangs_in_finalize_is_killed_after_its_limit(maker: Maker) -> None:
    source = """
    import signal
    class TritonPythonModel:
        def initialize(self, args):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        def execute(self, requests):
            return []
        def finalize(self):
            time.sleep(600)
    """
    config = make_config("IN:FP32", ">OUT:FP32")
    config.parameters["close_timeout_s"].string_value = "0.2"
    instance = maker.open(source, config)
    assert isinstance(instance, ProcessInstance)
    pid = pid_of(instance)
    started = time.monotonic()
    maker.close(instance)
    assert time.monotonic() - started < patience(10)
    assert is_gone(pid)


def test_what_the_model_has_started_ends_with_it(maker: Maker) -> None:
    source = """
    import subprocess, sys
    class TritonPythonModel:
        def initialize(self, args):
            self.helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        def execute(self, requests):
            reply = np.array([self.helper.pid], np.int64)
            return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", reply)])]
    """
    instance = open_controlled(maker, source)
    helper_pid = int(outputs_of(run(instance, ask()))["OUT"][0])
    os.kill(pid_of(instance), signal.SIGKILL)

    def has_ended() -> bool:
        # Its parent is gone: whether someone reaps it is the machine's matter.
        status = Path(f"/proc/{helper_pid}/stat")
        return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z"

    assert eventually(has_ended)


def test_the_process_dies_with_its_server(maker: Maker) -> None:
    files = maker.files(CONTROLLED)
    server = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from trivet.backends.api import ModelFiles, Placement
        from trivet.backends.process import open_isolated
        from trivet.protos.model_config_pb2 import ModelConfig
        instance = open_isolated(
            "python", ModelConfig(name="m"), ModelFiles(Path({str(files.model_dir)!r}), 1),
            Placement("m_0_0", "KIND_CPU", 0, 1))
        print(instance.pid, flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    assert eventually(lambda: is_gone(pid) or "Z" in Path(f"/proc/{pid}/stat").read_text())


def num_open_fds() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_opening_crashing_and_closing_leaks_no_descriptor_and_no_process(maker: Maker) -> None:
    maker.close(open_controlled(maker))  # a fork server stays
    before = num_open_fds()
    pids = []
    for _ in range(3):
        instance = open_controlled(maker)
        pids.append(pid_of(instance))
        run(instance, make_request(IN=np.zeros(1_000_000, np.float32)))
        with pytest.raises(InstanceDied):
            run(instance, ask("kill"))
        pids.append(int(outputs_of(run(instance, ask()))["OUT"][0]))
        maker.close(instance)
    assert num_open_fds() == before
    assert all(is_gone(pid) for pid in pids)


def test_a_failed_load_leaks_no_descriptor(maker: Maker) -> None:
    before = num_open_fds()
    source = "raise SystemExit(4)\nclass TritonPythonModel: pass"
    with pytest.raises(LoadFailed, match=r"ended while loading \(exit code 4\)"):
        maker.open(source, make_config("IN:FP32", ">OUT:FP32"))
    assert num_open_fds() == before


PLUS_ONE = """
class TritonPythonModel:
    def initialize(self, args):
        self.kept = []
    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(r, "IN").as_numpy() for r in requests]
        if requests[0].request_id() == "keep":
            self.kept += arrays
        if requests[0].request_id() == "kept":
            arrays = self.kept
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", a + 1)]) for a in arrays]
"""


def full(value: float, size_bytes: int, word: str = "") -> CheckedRequest:
    return changed(make_request(IN=np.full(size_bytes // 4, value, np.float32)), id=word)


@pytest.mark.parametrize("size_bytes", [0, 4, 32 << 10, (32 << 10) + 4, 300_000, 16 << 20])
def test_tensors_of_every_size_arrive_whole(maker: Maker, size_bytes: int) -> None:
    instance = maker.open(PLUS_ONE, make_config("IN:FP32", ">OUT:FP32"))
    for value in range(3):
        output = outputs_of(run(instance, full(value, size_bytes)))["OUT"]
        assert output.size == size_bytes // 4
        assert (output == value + 1).all()


def test_outputs_that_a_client_still_reads_are_not_overwritten(maker: Maker) -> None:
    instance = maker.open(PLUS_ONE, make_config("IN:FP32", ">OUT:FP32"))
    outputs = [outputs_of(run(instance, full(value, 1 << 20)))["OUT"] for value in range(8)]
    assert all((output == value + 1).all() for value, output in enumerate(outputs))


def test_inputs_that_a_model_keeps_are_not_overwritten(maker: Maker) -> None:
    instance = maker.open(PLUS_ONE, make_config("IN:FP32", ">OUT:FP32"))
    run(instance, full(7, 1 << 20, "keep"))
    for value in range(4):
        run(instance, full(value, 1 << 20))
    output = outputs_of(run(instance, full(0, 4, "kept")))["OUT"]
    assert output.size == (1 << 20) // 4
    assert (output == 8).all()


def test_memory_is_used_again_once_nobody_reads_it(maker: Maker) -> None:
    instance = maker.open(PLUS_ONE, make_config("IN:FP32", ">OUT:FP32"))
    for _ in range(3):
        run(instance, full(1, 4 << 20))
    before = num_open_fds()
    for _ in range(20):
        run(instance, full(1, 4 << 20))
    assert num_open_fds() <= before


def test_another_backend_can_be_isolated_and_gathers_a_batch_without_copying(
    tmp_path: Path,
) -> None:
    config = ModelConfig(name="i", backend="identity", max_batch_size=8)
    config.input.add(name="IN", data_type=11, dims=[-1])
    config.output.add(name="OUT", data_type=11, dims=[-1])
    placement = Placement("i_0_0", "KIND_CPU", 0, 1)
    instance = open_isolated("identity", config, ModelFiles(tmp_path, 1), placement)
    try:
        rows = [np.full((n, 3), n, np.float32) for n in (1, 2)]
        requests = [changed(make_request(IN=row), batch_size=len(row)) for row in rows]
        batch = Batch(requests, batching=True)
        instance.execute(batch)
        for index, row in enumerate(rows):
            np.testing.assert_array_equal(outputs_of(batch, index)["OUT"], row)
    finally:
        instance.close()


def test_the_process_imports_no_server_and_little_else(maker: Maker) -> None:
    source = """
    import sys
    class TritonPythonModel:
        def execute(self, requests):
            names = [[name] for name in sys.modules]
            return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array(names))])]
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:STRING"))
    names = {name.decode() for name in outputs_of(run(instance, ask()))["OUT"].ravel()}
    unwanted = {"aiohttp", "grpc", "onnxruntime", "torch", "asyncio", "prometheus_client"}
    assert not names & unwanted
    assert not {name for name in names if name.startswith("trivet.server")}


def test_numeric_libraries_are_told_their_share_of_threads(maker: Maker) -> None:
    source = """
    class TritonPythonModel:
        def execute(self, requests):
            reply = np.array([int(os.environ["OMP_NUM_THREADS"])], np.int64)
            return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", reply)])]
    """
    files = maker.files(source)
    placement = Placement("m_0_0", "KIND_CPU", 0, 3)
    config = make_config("IN:FP32", ">OUT:INT64")
    instance = open_isolated("python", config, files, placement)
    try:
        assert outputs_of(run(instance, ask()))["OUT"].tolist() == [3]
    finally:
        instance.close()


def run_to_death(instance: Instance) -> None:
    with pytest.raises(InstanceDied):
        run(instance, ask())


def test_what_the_model_prints_carries_its_instances_name(
    maker: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
    class TritonPythonModel:
        def execute(self, requests):
            print("first line")
            os.write(2, b"no end of line")
            os._exit(1)
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP32"))
    with caplog.at_level(logging.INFO):
        run_to_death(instance)
        maker.close(instance)
    printed = {each.getMessage(): each.__dict__ for each in caplog.records}
    for line in ("first line", "no end of line"):
        assert printed[line]["printed_by"] == "m_0_0"
        assert printed[line]["model"] == "m"
        assert printed[line]["pid"] > 0


def test_readiness_of_the_model_is_followed(maker: Maker) -> None:
    source = """
    class TritonPythonModel:
        def initialize(self, args):
            self.path = args["model_repository"] + "/up"
        def is_ready(self):
            return os.path.exists(self.path)
        def execute(self, requests):
            return []
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP32"))
    assert not instance.is_ready()
    (maker.files(source).model_dir / "up").touch()
    assert eventually(instance.is_ready)


def test_closing_while_the_process_is_being_restarted_does_not_wait_for_it(maker: Maker) -> None:
    source = """
    class TritonPythonModel:
        def initialize(self, args):
            path = args["model_repository"] + "/started"
            if os.path.exists(path):
                open(path + "_again", "w").close()
                time.sleep(600)
            open(path, "w").close()
        def execute(self, requests):
            os._exit(1)
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP32"))
    with pytest.raises(InstanceDied):
        run(instance, ask())
    assert eventually((maker.files(source).model_dir / "started_again").exists)
    started = time.monotonic()
    maker.close(instance)
    assert time.monotonic() - started < patience(10)
