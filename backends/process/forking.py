"""Processes that are forked from one that has imported what they share: the server's side.

Fifteen of them share the pages of what was imported once, and each starts in milliseconds.
"""

import ctypes
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Protocol

from trivet.backends.process.launch import Launched, launch
from trivet.backends.process.order import (
    FORK,
    NO_PROCESS,
    PROCESS_ID,
    READY,
    Order,
    instance_variables,
)

log = logging.getLogger(__name__)

NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
_PROGRAM = "trivet.backends.process.fork_server"
_PR_SET_CHILD_SUBREAPER = 36
_START_S = 300.0
"""How long a fork server may take to import what it shares: seconds, but on a machine that is not
busy."""
_ANSWER_S = 60.0
"""How long it may take for an answer before it is ended."""
_KEEP_S = 5.0
"""How long it stays after the last process that was forked from it has ended: a config is completed
in one, and the instance opened in the next."""


class CannotFork(Exception):
    """The process has to be started otherwise."""


class StartedProcess(Protocol):
    """A child of this process, however it was started."""

    @property
    def pid(self) -> int:
        """Its id."""

    def wait(self) -> int:
        """Waits for its end and reaps it, which nobody else does; its exit code, below 0 the number
        of a signal."""


class ForkServer:
    """Owns the process that others are forked from. It is started when it is needed first, again
    when it has died, and ended when there are no others any more. For any thread."""

    def __init__(
        self,
        backend: str,
        program: str = "trivet.backends.process.child",
        variables: Mapping[str, str] = NO_VARIABLES,
    ) -> None:
        """`backend`: whose processes it is for; `program`: the module whose `main` they run;
        `variables`: of its environment, where that has none of them."""
        self._backend = backend
        self._program = program
        self._variables = variables
        self._lock = threading.Lock()
        """Held while it is asked, which may take long where it does not answer."""
        self._launched: Launched | None = None
        self._counting = threading.Lock()
        self._num_running = 0
        """Processes that were forked, or are being forked."""
        self._end_later: threading.Timer | None = None
        self._is_refused = False
        """Whether it has not even started, and would not the next time."""

    def fork(self, order: Order, fds: Sequence[int]) -> "Forked":
        """A new process with copies of these descriptors: of two links and its output. Raises
        CannotFork."""
        self._note_start()
        try:
            with order.written() as order_fd, self._lock:
                return Forked(self._fork((order_fd, *fds)), self)
        except BaseException:
            self.note_end()
            raise

    @contextmanager
    def kept(self) -> Iterator[None]:
        """It does not end meanwhile: a process will be needed that nobody should wait long for."""
        self._note_start()
        try:
            yield
        finally:
            self.note_end()

    def _note_start(self) -> None:
        with self._counting:
            self._num_running += 1
            if self._end_later is not None:
                self._end_later.cancel()
                self._end_later = None

    def note_end(self) -> None:
        """A process that was forked has ended. Does not wait for one that is being forked."""
        with self._counting:
            self._num_running -= 1
            if self._num_running == 0:
                self._end_later = threading.Timer(_KEEP_S, self._end_unless_needed)
                self._end_later.daemon = True
                self._end_later.start()

    def _fork(self, fds: Sequence[int]) -> int:
        # It may have died since it was asked last.
        pid = self._ask(fds) or self._ask(fds)
        if pid is None:
            raise CannotFork
        if not _is_ours(pid):
            self._refuse("the system gives them another parent")
            raise CannotFork
        return pid

    def _ask(self, fds: Sequence[int]) -> int | None:
        """The id of the new process; None where there is none."""
        if self._is_refused:
            return None
        launched = self._launched = self._launched or self._launch()
        if launched is None:
            return None
        answer = b""
        with suppress(OSError), _ADOPTION.needed():
            socket.send_fds(launched.socket, [FORK], fds)
            answer = launched.socket.recv(PROCESS_ID.size)
        if not answer:
            self._end()
            return None
        pid: int = PROCESS_ID.unpack(answer)[0]
        return None if pid == NO_PROCESS else pid

    def _launch(self) -> Launched | None:
        """Started, and with all imported."""
        arguments = [str(os.getpid()), self._backend, self._program]
        output = ("fork server", "")
        environment = instance_variables({**self._variables, **os.environ}, 1)
        launched = launch(_PROGRAM, arguments, b"", output, environment=environment)
        launched.socket.settimeout(_START_S)
        with suppress(OSError):
            if launched.socket.recv(len(READY)) == READY:
                launched.socket.settimeout(_ANSWER_S)
                return launched
        launched.kill()
        self._refuse("a fork server does not start; its output is in this log")
        return None

    def _refuse(self, reason: str) -> None:
        self._is_refused = True
        text = "backend '%s': each process is started by itself and not forked: %s"
        log.warning(text, self._backend, reason)

    def _end_unless_needed(self) -> None:
        with self._lock, self._counting:
            if self._num_running == 0:
                self._end()

    def _end(self) -> None:
        launched, self._launched = self._launched, None
        if launched is not None:
            launched.kill()


@dataclass(frozen=True, slots=True)
class Forked:
    """A process that was forked, and is a child of this one."""

    pid: int
    server: ForkServer

    def wait(self) -> int:
        """See StartedProcess."""
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            # Whoever started the server has the system reap its children.
            status = 0
        self.server.note_end()
        return os.waitstatus_to_exitcode(status)


@cache
def fork_server_of(backend: str) -> ForkServer:
    """The one of this process for a backend's instances."""
    return ForkServer(backend)


class _Adoption:
    """Whether this process adopts orphans: while somebody waits for a fork. Not longer: it would
    have to reap what models start and leave behind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_waiting = 0

    @contextmanager
    def needed(self) -> Iterator[None]:
        """Descendants whose parent ends meanwhile become children of this process. Several may wait
        at a time, and none for another: a fork server may not answer for long."""
        library = ctypes.CDLL(None, use_errno=True)
        with self._lock:
            if library.prctl(_PR_SET_CHILD_SUBREAPER, 1) != 0:
                raise OSError(ctypes.get_errno(), "orphans cannot be adopted")
            self._num_waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_waiting -= 1
                if self._num_waiting == 0:
                    library.prctl(_PR_SET_CHILD_SUBREAPER, 0)


_ADOPTION = _Adoption()
"""Of this process: the system knows one such flag."""


def _is_ours(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
