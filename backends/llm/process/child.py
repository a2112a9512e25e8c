"""The engine's side of its socket: loads the model, runs the loop, stamps heartbeats. `main` is the
engine's process, which dies with its server; a thread of the server may do the same."""

import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

import orjson

from trivet.backends.api import ServingError, UnreadableFiles, judged
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.messages import (
    Failed,
    FrameReader,
    Heartbeat,
    Message,
    Quit,
    Ready,
    pack,
)
from trivet.backends.llm.process.logs import SendingHandler
from trivet.backends.llm.settings import EngineSettings

log = logging.getLogger(__name__)
HEARTBEAT_S = 0.25
_PR_SET_NAME = 15
_RECEIVED_BYTES = 1 << 18


def main() -> None:
    """argv: descriptor of the socket, the model's name. The settings come on standard input."""
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.stdin.buffer.read())


def serve(end: socket.socket, name: str, given: bytes) -> None:
    """The whole life of an engine's process. `name`: the model's; `given`: its settings."""
    # What the system's tools show: the command line of one that was forked is its parent's.
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"llm:{name}".encode())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when to stop
    settings = EngineSettings(**orjson.loads(given))
    # Not sys.exit: only this ends a process whose main thread computes.
    line = Line(end, on_gone=lambda: os._exit(0))
    logging.basicConfig(handlers=[SendingHandler(line.send)], level=logging.INFO)
    logging.captureWarnings(capture=True)
    run_engine(settings, line)


def run_engine(settings: EngineSettings, line: "Line") -> None:
    """Loads the model, says so, and serves until the server's end of the line is closed."""
    try:
        from trivet.backends.llm.engine.assemble import make_engine

        engine, info = make_engine(settings, line.send)
    except ServingError as error:
        line.send(Failed(error.message, isinstance(judged(error), UnreadableFiles)))
        return
    except Exception as error:
        log.exception("loading failed")
        line.send(Failed(f"the model cannot be loaded ({type(error).__name__}); see the log"))
        return
    # What was loaded stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    helpers = [
        threading.Thread(target=line.read, args=(engine,), daemon=True),
        threading.Thread(target=beat, args=(engine, line), daemon=True),
    ]
    for thread in helpers:
        thread.start()
    line.send(Ready(info))
    engine.run()
    engine.close()
    # The last that holds the engine frees its tensors, which a daemon thread must not do while the
    # interpreter ends: that would abort the process.
    line.hang_up()
    for thread in helpers:
        thread.join()


class Line:
    """The engine's end of the socket."""

    def __init__(self, end: socket.socket, *, on_gone: Callable[[], None]) -> None:
        """`on_gone`: what to do once the server is gone, besides ending the engine."""
        self._socket = end
        self._lock = threading.Lock()
        self._on_gone = on_gone
        self.gone = threading.Event()
        """The server has closed its end, or ours was closed."""

    def send(self, message: Message) -> None:
        """Blocks while the server does not read."""
        try:
            with self._lock:
                self._socket.sendall(pack(message))
        except OSError:
            self._note_gone()

    def hang_up(self) -> None:
        """Wakes whoever waits in the socket: what was sent arrives, no more is."""
        self.gone.set()
        with contextlib.suppress(OSError):  # the other end was faster
            self._socket.shutdown(socket.SHUT_RDWR)

    def read(self, engine: Engine) -> None:
        """Brings messages into the engine's inbox; the last is Quit when the server is gone, or
        when what it sends cannot be read: it starts the engine again then."""
        try:
            if self._read_messages(engine):
                return
        except ValueError:
            # Without this thread the engine would look alive and answer nobody.
            log.exception("the server sent nonsense; the engine ends")
        engine.inbox.put(Quit())
        self._note_gone()

    def _read_messages(self, engine: Engine) -> bool:
        """Whether the last was Quit."""
        reader = FrameReader()
        # One for all. A new one each time, of which most is given back at once, would leave holes
        # in what the allocator has for this thread, 400 bytes a request for as long as it runs.
        buffer = memoryview(bytearray(_RECEIVED_BYTES))
        while size := self._receive(buffer):
            for message in reader.feed(buffer[:size]):
                engine.inbox.put(message)
                if isinstance(message, Quit):
                    return True
        return False

    def _receive(self, buffer: memoryview) -> int:
        """How many bytes have come; 0 at the end."""
        try:
            return self._socket.recv_into(buffer)
        except OSError:
            return 0

    def _note_gone(self) -> None:
        self.gone.set()
        self._on_gone()


def beat(engine: Engine, line: Line) -> None:
    """Says that the engine's process lives, and how long its step has taken."""
    while not line.gone.wait(HEARTBEAT_S):
        started_s = engine.step_started_s
        line.send(Heartbeat(time.monotonic() - started_s if started_s else 0.0, engine.stats()))
