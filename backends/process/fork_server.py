"""The program that instance processes are forked from: it imports once what all of them need.

It has one thread, runs no model's code and computes nothing, so a fork of it is as good as a new
interpreter. What it forks is a child of the server, not of it, and goes on when it ends.
"""

import ctypes
import gc
import os
import socket
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from trivet.backends.confinement import leave_network
from trivet.backends.process.child import main as serve
from trivet.backends.process.order import FORK, NO_PROCESS, PROCESS_ID, READY, Order
from trivet.backends.registry import about_of, open_backend

SetThreads = Callable[[int], object]

_NUM_FDS = 4
_LIBRARIES = ("openblas", "gomp")
"""Parts of the names of those whose number of threads can be set after they were loaded, which is
when they read the environment."""
_SET_THREADS = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
    "omp_set_num_threads",
)
"""What the function for that may be called."""


def main() -> None:
    """Arguments of the program: the descriptor of its socket, the server's process id, whose
    instances are forked. Returns once the server is gone, and in a fork once that is done."""
    control, server_pid = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    # Ctrl-C in the server's terminal is the server's to handle.
    os.setsid()
    about = about_of(sys.argv[3])
    for module in about.shared_imports or ():
        import_module(module)
    open_backend(about.word)
    set_threads = _thread_setters()
    _check(set_threads)
    # A collection in a fork would write to each page of what was imported.
    gc.collect()
    gc.freeze()
    control.sendall(READY)
    if fds := _fork_on_demand(control):
        _become_instance(*fds, server_pid=server_pid, set_threads=set_threads)


def _check(set_threads: Sequence[SetThreads]) -> None:
    """A fork has none of the threads, and whatever locks they held for ever."""
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        sys.exit("what instance processes share has started threads, so nothing is forked")
    if not set_threads:
        sys.exit("NumPy computes with another library than OpenBLAS, so nothing is forked")


def _fork_on_demand(control: socket.socket) -> list[int]:
    """Forks whenever it is asked to. In a fork, its descriptors; else none, once nobody asks."""
    while True:
        _, fds, _, _ = socket.recv_fds(control, len(FORK), _NUM_FDS)
        if not fds:
            return []
        try:
            pid = _fork_for_server()
        except OSError:
            pid = NO_PROCESS
        if pid is None:
            control.close()
            return fds
        for fd in fds:
            os.close(fd)
        control.sendall(PROCESS_ID.pack(pid))


def _fork_for_server() -> int | None:
    """Forks a process whose parent is the server, as the nearest reaper of what a process in
    between leaves behind. Its id, which leads a session; None in it. Raises OSError."""
    told, tell = os.pipe()
    wait, go = os.pipe()
    try:
        between = os.fork()
    except OSError:
        for fd in (told, tell, wait, go):
            os.close(fd)
        raise
    if between == 0:
        _fork_and_leave()
        os.setsid()
        os.write(tell, PROCESS_ID.pack(os.getpid()))
        for fd in (told, tell, go):
            os.close(fd)
        os.read(wait, 1)
        os.close(wait)
        return None
    for fd in (tell, wait):
        os.close(fd)
    os.waitpid(between, 0)
    answer = os.read(told, PROCESS_ID.size)
    # Now that its parent is the server, it goes on.
    for fd in (told, go):
        os.close(fd)
    pid: int = PROCESS_ID.unpack(answer)[0] if answer else NO_PROCESS
    return pid


def _fork_and_leave() -> None:
    """Returns in the fork alone."""
    try:
        is_fork = os.fork() == 0
    except OSError:
        os._exit(1)
    if not is_fork:
        os._exit(0)


def _become_instance(
    order_fd: int,
    calls_fd: int,
    events_fd: int,
    output_fd: int,
    *,
    server_pid: int,
    set_threads: Sequence[SetThreads],
) -> None:
    """What `exec` would do, and a new interpreter; then serves as any other instance process."""
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output_fd, stream.fileno())
    os.close(output_fd)
    order = Order.read(order_fd)
    order.take_effect()
    reason = leave_network() if order.is_confined else None
    for each in set_threads:
        each(order.num_threads)
    if "numpy.random" in sys.modules:
        # Or all of them would draw the same numbers.
        sys.modules["numpy.random"].seed()
    sys.argv[1:] = map(str, (calls_fd, events_fd, server_pid))
    serve(network="" if reason is None else f"not taken away ({reason})")


def _thread_setters() -> list[SetThreads]:
    """The functions that set it, of all libraries that are loaded."""
    found = []
    for path in _loaded_libraries():
        library = ctypes.CDLL(path)
        named = [getattr(library, name, None) for name in _SET_THREADS]
        found += [function for function in named if function is not None][:1]
    return found


def _loaded_libraries() -> list[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in lines if ".so" in line}
    return [path for path in sorted(paths) if any(each in Path(path).name for each in _LIBRARIES)]
