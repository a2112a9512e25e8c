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
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path

from trivet.backends.confinement import leave_network
from trivet.backends.process.order import FORK, NO_PROCESS, PROCESS_ID, READY, Order
from trivet.backends.registry import about_of, open_backend

SetThreads = Callable[[int], object]
Serve = Callable[[str], None]

_NUM_FDS = 4
_GO = b"g"
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
    processes are forked, and the module whose `main` they run. Returns once the server is gone,
    and in a fork once that is done."""
    control, server_pid = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    # Ctrl-C in the server's terminal is the server's to handle.
    os.setsid()
    about = about_of(sys.argv[3])
    for module in about.shared_imports or ():
        import_module(module)
    open_backend(about.word)
    serve: Serve = import_module(sys.argv[4]).main
    set_threads = _thread_setters()
    _check(set_threads)
    # A collection in a fork would write to each page of what was imported.
    gc.collect()
    gc.freeze()
    control.sendall(READY)
    if fds := _fork_on_demand(control):
        _become_instance(*fds, server_pid=server_pid, set_threads=set_threads, serve=serve)


def _check(set_threads: Sequence[SetThreads]) -> None:
    """A fork has none of the threads, and whatever locks they held for ever."""
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        sys.exit("what instance processes share has started threads, so nothing is forked")
    if not any("openblas" in Path(path).name for path in _loaded_libraries()):
        sys.exit("NumPy computes with another library than OpenBLAS, so nothing is forked")
    if not set_threads:
        sys.exit("OpenBLAS has no function that sets its threads, so nothing is forked")


def _fork_on_demand(control: socket.socket) -> list[int]:
    """Forks whenever it is asked to. In a fork, its descriptors; else none, once nobody asks."""
    while True:
        _, fds, _, _ = socket.recv_fds(control, len(FORK), _NUM_FDS)
        if not fds:
            return []
        try:
            forked = _fork_for_server()
        except OSError:
            _close(fds)
            control.sendall(PROCESS_ID.pack(NO_PROCESS))
            continue
        if forked is None:
            control.close()
            return fds
        _close(fds)
        pid, waiting = forked
        with waiting:
            control.sendall(PROCESS_ID.pack(pid))
            # The server, its parent by now, knows of it.
            with suppress(OSError):
                waiting.sendall(_GO)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _fork_for_server() -> tuple[int, socket.socket] | None:
    """Forks a process whose parent is the server, as the nearest reaper of what a process in
    between leaves behind. It leads a session. Its id and where it waits for _GO; None in it.
    Raises OSError."""
    ours, theirs = socket.socketpair()
    with ExitStack() as undo:
        undo.callback(ours.close)
        with theirs:
            between = os.fork()
            if between == 0:
                _fork_and_leave()
                ours.close()
                os.setsid()
                _wait(theirs)
                return None
        os.waitpid(between, 0)
        answer = ours.recv(PROCESS_ID.size)
        undo.pop_all()
    return PROCESS_ID.unpack(answer)[0] if answer else NO_PROCESS, ours


def _wait(end: socket.socket) -> None:
    """Ends the process where what it was forked from dies first: the server does not know of it,
    and has another one forked for what it has descriptors of."""
    is_known = False
    with suppress(OSError):
        end.sendall(PROCESS_ID.pack(os.getpid()))
        is_known = end.recv(len(_GO)) == _GO
    if not is_known:
        os._exit(1)


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
    serve: Serve,
) -> None:
    """What `exec` would do, and a new interpreter; then serves as one that was started does."""
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
    serve("" if reason is None else f"not taken away ({reason})")


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
