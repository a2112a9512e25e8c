"""Starts a program of ours as a fork of one that has imported what it needs."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from trivet.backends.process.forking import Forked, ForkServer
from trivet.backends.process.launch import Launched, Process, connected
from trivet.backends.process.order import Order


def launch_forked(
    server: ForkServer,
    order: Order,
    settings: bytes,
    output: tuple[str, str],
    socket_bytes: int = 0,
) -> Launched:
    """See `launch`. The arguments of the program are the descriptors of its socket and of a file
    with its settings, and this process's id. Raises CannotFork."""

    def start(socket_fd: int, output_fd: int, undo: ExitStack) -> Process:  # noqa: ARG001
        with _written(settings) as settings_fd:
            return ForkedProcess(server.fork(order, (socket_fd, settings_fd, output_fd)))

    return connected(start, output, socket_bytes)


class ForkedProcess:
    """See Process. Waited for by one thread at a time."""

    def __init__(self, forked: Forked) -> None:
        self._forked = forked
        self._code: int | None = None

    @property
    def pid(self) -> int:
        """See Process."""
        return self._forked.pid

    def poll(self) -> int | None:
        """See Process."""
        if self._code is None:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            with suppress(ChildProcessError):  # the system has reaped it
                if os.waitid(os.P_PID, self.pid, options) is None:
                    return None
            return self.wait()
        return self._code

    def wait(self) -> int:
        """See Process."""
        if self._code is None:
            self._code = self._forked.wait()
        return self._code

    def kill(self) -> None:
        """See Process."""
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


@contextmanager
def _written(settings: bytes) -> Iterator[int]:
    fd = os.memfd_create("settings")
    try:
        os.pwrite(fd, settings, 0)
        yield fd
    finally:
        os.close(fd)
