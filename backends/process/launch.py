"""Starts a program of ours that reads its settings from standard input and talks over a socket."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO, Protocol

from trivet.backends.process.output import OutputLines
from trivet.backends.process.program import program

_LAST_WORDS_S = 1.0
"""How long its own children may outlive it before nobody waits for what they print."""


class Process(Protocol):
    """A child of this one, as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int:
        """Its id."""

    def poll(self) -> int | None:
        """Its exit code, below 0 the number of a signal; None while it runs."""

    def wait(self) -> int:
        """The same, once it has ended."""

    def kill(self) -> None:
        """Ends it, if it has not ended."""


class StartProcess(Protocol):
    """How a process comes to be."""

    def __call__(self, socket_fd: int, output_fd: int, undo: ExitStack) -> Process:
        """Starts it with these descriptors. `undo`: what is to be done where the rest fails."""


@dataclass(frozen=True, slots=True)
class Launched:
    """The started process and our end of its socket. Whoever has it ends it and closes that."""

    process: Process
    socket: socket.socket
    printing: threading.Thread
    """Passes on what it and its own children print; ends with them."""

    def kill(self) -> None:
        """Ends the process at once, if it has not ended, and frees what it held."""
        _end(self.process)
        self.printing.join(_LAST_WORDS_S)
        self.socket.close()


def launch(
    module: str,
    arguments: Sequence[str],
    settings: bytes,
    output: tuple[str, str],
    *,
    environment: Mapping[str, str] | None = None,
    socket_bytes: int = 0,
) -> Launched:
    """Runs a module's `main` in an interpreter of its own: its arguments are the descriptor of its
    socket, then these. `output`: whose its prints are, and of which model; `socket_bytes`: what the
    socket holds on the way to us. Where it fails, nothing is left open."""
    standard_inputs: list[IO[bytes]] = []

    def start(socket_fd: int, output_fd: int, undo: ExitStack) -> Process:
        process = subprocess.Popen(  # noqa: S603  # our own interpreter and program
            [sys.executable, "-P", "-c", program(module), str(socket_fd), *arguments],
            pass_fds=[socket_fd],
            stdin=subprocess.PIPE,
            stdout=output_fd,
            stderr=output_fd,
            env=environment,
        )
        assert process.stdin is not None
        undo.callback(process.stdin.close)
        standard_inputs.append(process.stdin)
        return process

    launched = connected(start, output, socket_bytes)
    # One that has ended already says so to whoever waits for its first word.
    with suppress(BrokenPipeError), standard_inputs[0] as given:
        given.write(settings)
    return launched


def connected(start: StartProcess, output: tuple[str, str], socket_bytes: int = 0) -> Launched:
    """A process that has the other end of a socket, and whose output is passed on."""
    with ExitStack() as undo:
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        with theirs:
            if socket_bytes:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, socket_bytes)
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, socket_bytes)
            read_fd, write_fd = os.pipe()
            lines = OutputLines(read_fd, *output)
            undo.callback(lines.close)
            with os.fdopen(write_fd, "wb") as printed:
                process = start(theirs.fileno(), printed.fileno(), undo)
        undo.callback(_end, process)
        lines.pid = process.pid
        printing = threading.Thread(target=lines.follow, name=f"output of {output[0]}", daemon=True)
        printing.start()
        undo.pop_all()
    return Launched(process, ours, printing)


def _end(process: Process) -> None:
    process.kill()
    process.wait()
