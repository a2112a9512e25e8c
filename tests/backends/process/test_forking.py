"""A forked process is as good as a started one: the server's child, alike in all that a parent
hands on, and none the worse for the end of what it was forked from."""

import ctypes
import json
import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from patience import fires_after, patience
from python_models import Maker, make_config, make_request, outputs_of, run

from trivet.backends.api import Instance, Measure, Pickles, Placement
from trivet.backends.process import forking, open_isolated, spawn
from trivet.backends.process.forking import CannotFork, ForkServer
from trivet.backends.process.order import Order, instance_variables
from trivet.server.models.cpu_memory import host_bytes

PLACEMENT = Placement("m_0_0", "KIND_CPU", 0, 1)
CONFIG = make_config("IN:FP32", ">OUT:STRING")
TELLS = """
import random, sys
class TritonPythonModel:
    def execute(self, requests):
        told = np.array([json.dumps({expression}).encode()], np.object_)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", told)])]
"""
DIES = """
import os
from pathlib import Path
from trivet.backends.process import fork_server
fork = fork_server._fork_for_server
def fork_and_die():
    forked = fork()
    if forked is not None and not Path({died!r}).exists():
        Path({died!r}).touch()
        os._exit(1)
    return forked
fork_server._fork_for_server = fork_and_die
main = fork_server.main
"""
_PR_GET_CHILD_SUBREAPER = 37


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    """A fork server of the test's own."""
    made = ForkServer("python")
    monkeypatch.setattr(spawn, "fork_server_of", lambda _: made)
    yield made
    made._end()


class Teller:
    """Opens models that say what an expression is in their process; closes them after the test."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker
        self.opened: list[Instance] = []

    def open(self, expression: str, placement: Placement = PLACEMENT, **files: Any) -> Instance:
        given = self._maker.files(TELLS.format(expression=expression))
        instance = open_isolated("python", CONFIG, replace(given, **files), placement)
        self.opened.append(instance)
        return instance

    def tells(self, expression: str, placement: Placement = PLACEMENT, **files: Any) -> Any:
        return ask(self.open(expression, placement, **files))


def ask(instance: Instance) -> Any:
    (told,) = outputs_of(run(instance, make_request(IN=np.zeros(1, np.float32))))["OUT"]
    return json.loads(told)


@pytest.fixture
def teller(maker: Maker) -> Iterator[Teller]:
    made = Teller(maker)
    yield made
    for instance in made.opened:
        instance.close()


def process_of(instance: Any) -> psutil.Process:
    return psutil.Process(instance.pid)


def num_open_fds() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_it_is_forked_and_a_child_of_the_server(teller: Teller) -> None:
    process = process_of(teller.open("1"))
    assert process.ppid() == os.getpid()
    assert "fork_server" in " ".join(process.cmdline())
    assert os.getpgid(process.pid) == os.getsid(process.pid) == process.pid


def test_it_has_the_environment_cores_and_limits_of_whoever_starts_it_now(
    teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    expression = (
        "[os.environ.get('LATER'), os.environ['OMP_NUM_THREADS'], sorted(os.sched_getaffinity(0)), "
        "__import__('resource').getrlimit(__import__('resource').RLIMIT_CORE)]"
    )
    assert teller.tells(expression)[0] is None
    monkeypatch.setenv("LATER", "caf\udce9")
    cores, limits = os.sched_getaffinity(0), resource.getrlimit(resource.RLIMIT_CORE)
    try:
        os.sched_setaffinity(0, {min(cores)})
        resource.setrlimit(resource.RLIMIT_CORE, (0, limits[1]))
        told = teller.tells(expression)
    finally:
        os.sched_setaffinity(0, cores)
        resource.setrlimit(resource.RLIMIT_CORE, limits)
    assert told == ["caf\udce9", "1", [min(cores)], [0, limits[1]]]


def test_numpy_computes_with_its_share_of_threads(teller: Teller) -> None:
    expression = (
        "[np.ones((500, 500)) @ np.ones((500, 500)) is None, len(os.listdir('/proc/self/task'))][1]"
    )
    alone = teller.tells(expression)
    assert teller.tells(expression, replace(PLACEMENT, cpu_threads=3)) == alone + 2


def test_it_holds_nothing_of_others(teller: Teller) -> None:
    expression = (
        "[os.readlink(each.path) for each in os.scandir('/proc/self/fd') if each.is_symlink()]"
    )
    teller.open("1")
    told = [each for each in teller.tells(expression) if not each.startswith("/proc/")]
    assert told[0] == os.devnull
    assert told[1] == told[2]
    assert len([each for each in told if each.startswith("socket:")]) == 2
    assert len(told) == 5


def test_no_two_draw_the_same_random_numbers(teller: Teller) -> None:
    drawn = [teller.tells("[random.random(), np.random.random()]") for _ in range(3)]
    assert len({number for pair in drawn for number in pair}) == 6


def test_it_leaves_the_network_where_it_may_run_what_a_file_says(teller: Teller) -> None:
    reach = "__import__('socket').socket().connect_ex(('127.0.0.1', {port}))"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        expression = reach.format(port=listener.getsockname()[1])
        assert teller.tells(expression) == 0
        told = teller.tells(f"[{expression}, os.getuid()]", pickles=Pickles.APART)
    assert told[1] == os.getuid()
    if not can_leave_network():
        pytest.skip("this kernel lets no process leave the network")
    assert told[0] != 0


def can_leave_network() -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(ctypes.CDLL(None).unshare(0x50000000) != 0)
    return os.waitpid(pid, 0)[1] == 0


def test_the_end_of_the_fork_server_ends_nothing_and_the_next_model_gets_another(
    teller: Teller, own: ForkServer
) -> None:
    first = teller.open("os.getpid()")
    assert own._launched is not None
    own._launched.process.kill()
    assert ask(first) == process_of(first).pid
    second = teller.open("os.getpid()")
    assert ask(second) == process_of(second).pid
    assert "fork_server" in " ".join(process_of(second).cmdline())


def test_one_that_does_not_answer_is_replaced(teller: Teller, own: ForkServer) -> None:
    teller.open("1")
    assert own._launched is not None
    stuck = own._launched
    os.kill(stuck.process.pid, signal.SIGSTOP)
    stuck.socket.settimeout(fires_after(0.05))
    assert ask(teller.open("7")) == 7
    assert stuck.process.wait() == -signal.SIGKILL


def test_where_none_starts_processes_are_started_one_by_one(
    teller: Teller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = ForkServer("nonsense")
    monkeypatch.setattr(spawn, "fork_server_of", lambda _: broken)
    for _ in range(2):
        process = process_of(teller.open("1"))
        assert "backends.process.child" in " ".join(process.cmdline())
    told = [each for each in caplog.messages if "by itself and not forked" in each]
    assert len(told) == 1, "a fork server that does not start is not tried again"


def test_it_ends_when_nothing_forked_is_left(
    teller: Teller, own: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "_KEEP_S", 0.0)
    before = num_open_fds()
    first, second = teller.open("1"), teller.open("2")
    teller.opened.clear()
    first.close()
    assert own._launched is not None
    launched = own._launched
    second.close()
    assert launched.process.wait() == -signal.SIGKILL
    with own._lock:
        assert num_open_fds() == before
    assert ask(teller.open("3")) == 3


def test_many_may_ask_at_once_and_nothing_is_adopted_afterwards(own: ForkServer) -> None:
    order = Order.of_caller(instance_variables(os.environ, 1), 1, is_confined=False)

    def fork(_: int) -> int:
        ours, theirs = socket.socketpair()
        with theirs:
            forked = own.fork(order, [theirs.fileno()] * 3)
        ours.close()
        return forked.wait()

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(fork, range(8)))
    assert codes == [1] * 8, "nobody was at the other end"
    found = ctypes.c_int(7)
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(found), 0, 0, 0)
    assert found.value == 0
    assert [each for each in psutil.Process().children() if each.status() == "zombie"] == []


def test_one_that_does_not_answer_keeps_no_other_from_forking(
    teller: Teller, own: ForkServer
) -> None:
    teller.open("1")
    assert own._launched is not None
    stuck, other = own._launched, ForkServer("python")
    os.kill(stuck.process.pid, signal.SIGSTOP)
    order = Order.of_caller(instance_variables(os.environ, 1), 1, is_confined=False)
    ours, theirs = socket.socketpair()
    with ThreadPoolExecutor(1) as pool, theirs:
        waiting = pool.submit(own._ask, [theirs.fileno()] * 4)
        while forking._ADOPTION._num_waiting == 0:
            pass
        forked = other.fork(order, [theirs.fileno()] * 3)
        assert not waiting.done()
        stuck.process.kill()
        waiting.result(patience())
    ours.close()
    forked.wait()
    other._end()


def test_where_forks_become_nobodys_children_they_are_given_up(
    teller: Teller, own: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking._ADOPTION, "needed", nullcontext)
    process = process_of(teller.open("1"))
    assert "backends.process.child" in " ".join(process.cmdline())
    assert own._is_refused


@pytest.mark.alone  # memory
def test_what_was_imported_once_is_not_the_models_own(
    teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> ForkServer:
        raise CannotFork

    forked = teller.open("1")
    monkeypatch.setattr(spawn, "fork_server_of", refuse)
    started = teller.open("1")
    ask(forked), ask(started)
    own_bytes = [host_bytes([each], Measure.OUTSIDE) for each in (forked, started)]
    assert own_bytes[0] * 2 < own_bytes[1]


def test_where_it_dies_while_it_forks_there_are_no_two_processes_for_one_link(
    teller: Teller, own: ForkServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    died = tmp_path / "died"
    (tmp_path / "fork_server_that_dies.py").write_text(DIES.format(died=str(died)))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(forking, "_PROGRAM", "fork_server_that_dies")
    before = set(psutil.Process().children())
    instance = teller.open("os.getpid()")
    assert died.exists()
    assert ask(instance) == process_of(instance).pid
    assert own._launched is not None
    known = {process_of(instance).pid, own._launched.process.pid}
    others = {each for each in psutil.Process().children() if each.pid not in known} - before
    assert [each for each in others if each.status() != psutil.STATUS_ZOMBIE] == []


def test_it_ends_where_all_that_it_forks_is_nobodys_child(
    teller: Teller, own: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking._ADOPTION, "needed", nullcontext)
    teller.open("1")
    assert own._launched is not None
    assert own._end_later is not None
    own._end_unless_needed()
    assert own._launched is None


def test_an_end_is_noted_while_it_does_not_answer(teller: Teller, own: ForkServer) -> None:
    first = teller.open("1")
    teller.opened.clear()
    with own._lock:
        closing = threading.Thread(target=first.close)
        closing.start()
        closing.join(patience())
        assert not closing.is_alive()
