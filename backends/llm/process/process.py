"""The engine's process as the server holds it: start, handshake, end. Blocking; used in threads."""

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from trivet.backends.api import LoadFailed, UnreadableFiles
from trivet.backends.llm.messages import Failed, FrameReader, Logged, Message, Ready
from trivet.backends.llm.process.logs import log_of_engine
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.process.ending import Ending, MemoryKills
from trivet.backends.process.output import OutputLines
from trivet.backends.process.program import program

log = logging.getLogger(__name__)
_SOCKET_BYTES = 1 << 20
_LAST_WORDS_S = 1.0
"""How long ranks may outlive their engine before nobody waits for what they print."""


class StartedEngine(Protocol):
    """A loaded engine at the other end of a socket."""

    @property
    def name(self) -> str:
        """The model's."""

    @property
    def socket(self) -> socket.socket:
        """Closed by `kill`."""

    @property
    def info(self) -> dict[str, Any]:
        """What the engine says of itself: the fields of GeneratorInfo."""

    @property
    def early(self) -> Sequence[Message]:
        """Messages that came behind the handshake."""

    def is_running(self) -> bool:
        """Whether it has not ended."""

    def look(self) -> None:
        """To be called often: how it ended cannot be known otherwise."""

    def kill(self) -> None:
        """Ends it, if it has not ended, and frees what it held. Nobody else does."""

    def ending(self) -> Ending:
        """How it ended; asked after `kill`."""


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """An engine in a process of its own."""

    name: str
    process: "subprocess.Popen[bytes]"
    socket: socket.socket
    info: dict[str, Any]
    early: Sequence[Message]
    printing: threading.Thread | None = None
    """Passes on what it and its ranks print; ends with them. None: nobody does."""
    memory_kills: MemoryKills = field(default_factory=MemoryKills)

    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def look(self) -> None:
        """See StartedEngine."""
        self.memory_kills.look()

    def kill(self) -> None:
        """Ends the process at once, if it has not ended, and frees what it held."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.printing is not None:
            self.printing.join(_LAST_WORDS_S)
        self.socket.close()

    def ending(self) -> Ending:
        """How it ended."""
        return Ending.of(self.process.wait(), is_out_of_memory=self.memory_kills.are_fresh())


def start_process(name: str, settings: EngineSettings) -> EngineProcess:
    """Starts an engine's process and waits until its model is loaded. Raises LoadFailed."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
    read_fd, write_fd = os.pipe()
    output = OutputLines(read_fd, name, name)
    with theirs, os.fdopen(write_fd, "wb") as printed:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        process = subprocess.Popen(  # noqa: S603  # our own interpreter and program
            [
                sys.executable,
                "-P",
                "-c",
                program("trivet.backends.llm.process.child"),
                str(theirs.fileno()),
                name,
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE,
            stdout=printed,
            stderr=printed,
            env=_environment(settings),
        )
    output.pid = process.pid
    printing = threading.Thread(target=output.follow, name=f"output of {name}", daemon=True)
    printing.start()
    assert process.stdin is not None
    with process.stdin:
        process.stdin.write(orjson.dumps(settings.to_json()))
    try:
        info, early = handshake(name, ours, settings.load_timeout_s)
    except BaseException:
        process.kill()
        process.wait()
        printing.join(_LAST_WORDS_S)
        ours.close()
        raise
    return EngineProcess(name, process, ours, info, early, printing)


def _environment(settings: EngineSettings) -> dict[str, str]:
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    if settings.device_uuid:
        environment["CUDA_VISIBLE_DEVICES"] = settings.device_uuid
    return environment


def handshake(
    name: str, end: socket.socket, timeout_s: float
) -> tuple[dict[str, Any], list[Message]]:
    """Waits for a new engine's word: what it says of itself, and what came behind that. Raises
    LoadFailed."""
    deadline = time.monotonic() + timeout_s
    reader = FrameReader()
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise LoadFailed(
                f"the engine of '{name}' did not load its model within {timeout_s:g} s "
                "(model parameter load_timeout_s)"
            )
        if not select.select([end], [], [], left_s)[0]:
            continue
        data = end.recv(1 << 16)
        if not data:
            raise LoadFailed(
                f"the engine of '{name}' ended while loading; its output is in the server log"
            )
        messages = list(reader.feed(data))
        for index, message in enumerate(messages):
            if isinstance(message, Failed):
                raise (UnreadableFiles if message.is_unreadable else LoadFailed)(message.text)
            if isinstance(message, Logged):
                log_of_engine(name, message)
            if isinstance(message, Ready):
                return message.info, messages[index + 1 :]
