"""How an engine is started: in a process of its own, or, to debug it, in a thread of the server."""

import logging
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trivet.backends.api import Cause
from trivet.backends.llm.messages import Message
from trivet.backends.llm.process.process import (
    StartedEngine,
    StartingEngine,
    begin_process,
    handshake,
)
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.process.ending import Ending

log = logging.getLogger(__name__)
_END_S = 30.0


@dataclass(frozen=True, slots=True)
class EngineThread:
    """An engine in a thread. It cannot be killed: a step that hangs goes on hanging."""

    name: str
    thread: threading.Thread
    socket: socket.socket
    info: dict[str, Any]
    early: Sequence[Message]

    def is_running(self) -> bool:
        """Whether the thread has not ended."""
        return self.thread.is_alive()

    def look(self) -> None:
        """A thread does not end by itself."""

    def memory_bytes(self) -> int:
        """It shares the server's, where nobody knows."""
        return 0

    def kill(self) -> None:
        """Hangs up, which ends the engine behind its present step."""
        self.socket.close()
        self.thread.join(_END_S)
        if self.thread.is_alive():
            log.error("the engine of '%s' does not end; its thread is left behind", self.name)

    def ending(self) -> Ending:
        """Its thread's end has no code."""
        return Ending(Cause.EXIT, "its thread has ended")


@dataclass(frozen=True, slots=True)
class StartingThread:
    """A thread whose engine loads its model."""

    name: str
    thread: threading.Thread
    socket: socket.socket
    load_timeout_s: float

    def wait(self) -> EngineThread:
        """See StartingEngine."""
        info, early = handshake(self.name, self.socket, self.load_timeout_s)
        return EngineThread(self.name, self.thread, self.socket, info, early)

    def kill(self) -> None:
        """Hangs up: the thread ends once it has loaded."""
        self.socket.close()


def start_engine(name: str, settings: EngineSettings) -> StartedEngine:
    """Starts an engine and waits for its model. Raises LoadFailed."""
    starting = begin_engine(name, settings)
    try:
        return starting.wait()
    except BaseException:
        starting.kill()
        raise


def begin_engine(name: str, settings: EngineSettings) -> StartingEngine:
    """Starts an engine where its settings say."""
    return begin_thread(name, settings) if settings.in_process else begin_process(name, settings)


def begin_thread(name: str, settings: EngineSettings) -> StartingThread:
    """The same engine behind the same socket, in a thread."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(
        target=_run, args=(settings, theirs), name=f"engine of {name}", daemon=True
    )
    thread.start()
    return StartingThread(name, thread, ours, settings.load_timeout_s)


def _run(settings: EngineSettings, end: socket.socket) -> None:
    # The engine's framework comes with it; a server with engines of their own needs none.
    from trivet.backends.llm.process.child import Line, run_engine

    line = Line(end, on_gone=lambda: None)
    try:
        run_engine(settings, line)
    finally:
        # The server learns of the end by it.
        line.hang_up()
        end.close()
