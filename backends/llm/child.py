"""The engine's process: loads the model, runs the loop, stamps heartbeats. Dies with its server."""

import logging
import os
import signal
import socket
import sys
import threading
import time

import orjson

from trivet.backends.api import ServingError
from trivet.backends.llm.engine import Engine
from trivet.backends.llm.messages import (
    Failed,
    FrameReader,
    Heartbeat,
    Message,
    Quit,
    Ready,
    pack,
)
from trivet.backends.llm.settings import EngineSettings

HEARTBEAT_S = 0.25


def main() -> None:
    """argv: descriptor of the socket, the model's name. The settings come on standard input."""
    end = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when to stop
    logging.basicConfig(format=f"engine of {sys.argv[2]}: %(message)s", level=logging.INFO)
    line = Line(end)
    settings = EngineSettings(**orjson.loads(sys.stdin.buffer.read()))
    try:
        from trivet.backends.llm.assemble import make_engine

        engine, info = make_engine(settings, line.send)
    except ServingError as error:
        line.send(Failed(error.message))
        return
    except Exception as error:
        logging.exception("loading failed")  # noqa: LOG015  # this process has no other logger yet
        line.send(Failed(f"the model cannot be loaded ({type(error).__name__}); see the log"))
        return
    line.send(Ready(info))
    threading.Thread(target=line.read, args=(engine,), daemon=True).start()
    threading.Thread(target=beat, args=(engine, line), daemon=True).start()
    engine.run()


class Line:
    """The engine's end of the socket."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Blocks while the server does not read. Ends the process when it is gone."""
        try:
            with self._lock:
                self._socket.sendall(pack(message))
        except OSError:
            os._exit(0)

    def read(self, engine: Engine) -> None:
        """Brings messages into the engine's inbox; the end of the server ends the process."""
        reader = FrameReader()
        while data := self._receive():
            for message in reader.feed(data):
                engine.inbox.put(message)
                if isinstance(message, Quit):
                    return
        os._exit(0)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(1 << 18)
        except OSError:
            return b""


def beat(engine: Engine, line: Line) -> None:
    """Says that the process lives, and how long its step has taken."""
    while True:
        time.sleep(HEARTBEAT_S)
        started_s = engine.step_started_s
        line.send(Heartbeat(time.monotonic() - started_s if started_s else 0.0, engine.stats()))
