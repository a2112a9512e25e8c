"""Starts a program of ours that reads its settings from standard input and talks over a socket."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from trivet.backends.process.output import OutputLines
from trivet.backends.process.program import program

_LAST_WORDS_S = 1.0
"""How long its own children may outlive it before nobody waits for what they print."""


@dataclass(frozen=True, slots=True)
class Launched:
    """The started process and our end of its socket. Whoever has it ends it and closes that."""

    process: "subprocess.Popen[bytes]"
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
                process = subprocess.Popen(  # noqa: S603  # our own interpreter and program
                    [sys.executable, "-P", "-c", program(module), str(theirs.fileno()), *arguments],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.PIPE,
                    stdout=printed,
                    stderr=printed,
                    env=environment,
                )
        assert process.stdin is not None
        undo.callback(process.stdin.close)
        undo.callback(_end, process)
        lines.pid = process.pid
        printing = threading.Thread(target=lines.follow, name=f"output of {output[0]}", daemon=True)
        printing.start()
        undo.pop_all()
    # One that has ended already says so to whoever waits for its first word.
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(settings)
    return Launched(process, ours, printing)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
