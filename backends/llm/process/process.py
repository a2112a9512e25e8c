"""The engine's process as the server holds it: start, handshake, end. Blocking; used in threads."""

import logging
import os
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import orjson
import psutil

from trivet.backends.api import LoadFailed, UnreadableFiles
from trivet.backends.llm.messages import Failed, FrameReader, Logged, Message, Ready
from trivet.backends.llm.process.logs import log_of_engine
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.process.ending import Ending, MemoryKills
from trivet.backends.process.forked_launch import launch_forked
from trivet.backends.process.forking import CannotFork, ForkServer
from trivet.backends.process.launch import Launched, launch
from trivet.backends.process.order import Order

log = logging.getLogger(__name__)
_SOCKET_BYTES = 1 << 20
SHORT_WAITS = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}
"""Threads of OpenMP that wait for one another give up their core after 100 us, not after 20 ms, for
somebody else may want it. An operator's own variables count more."""


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

    def memory_bytes(self) -> int:
        """What its processes have in host memory and share with no others."""

    def kill(self) -> None:
        """Ends it, if it has not ended, and frees what it held. Nobody else does."""

    def ending(self) -> Ending:
        """How it ended; asked after `kill`."""


class StartingEngine(Protocol):
    """An engine that loads its model, at the other end of a socket."""

    def wait(self) -> StartedEngine:
        """Until the model is loaded. Raises LoadFailed. Blocking."""

    def kill(self) -> None:
        """Gives it up, however far it is; called where `wait` is not, or has failed."""


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """An engine in a process of its own."""

    name: str
    launched: Launched
    info: dict[str, Any]
    early: Sequence[Message]
    memory_kills: MemoryKills = field(default_factory=MemoryKills)

    @property
    def socket(self) -> socket.socket:
        """See StartedEngine."""
        return self.launched.socket

    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self.launched.process.poll() is None

    def look(self) -> None:
        """See StartedEngine."""
        self.memory_kills.look()

    def memory_bytes(self) -> int:
        """See StartedEngine. Ranks are processes that it has started."""
        with suppress(psutil.Error):  # it has just died
            first = psutil.Process(self.launched.process.pid)
            each = (first, *first.children(recursive=True))
            return sum(process.memory_full_info().uss for process in each)
        return 0

    def kill(self) -> None:
        """See StartedEngine."""
        self.launched.kill()

    def ending(self) -> Ending:
        """How it ended."""
        code = self.launched.process.wait()
        return Ending.of(code, is_out_of_memory=self.memory_kills.are_fresh())


@dataclass(frozen=True, slots=True)
class StartingProcess:
    """A process whose engine loads its model."""

    name: str
    launched: Launched
    load_timeout_s: float

    def wait(self) -> EngineProcess:
        """Until the model is loaded. Raises LoadFailed."""
        info, early = handshake(self.name, self.launched.socket, self.load_timeout_s)
        return EngineProcess(self.name, self.launched, info, early)

    def kill(self) -> None:
        """Gives it up, however far it is."""
        self.launched.kill()


def begin_process(name: str, settings: EngineSettings) -> StartingProcess:
    """Starts an engine's process, which then loads its model."""
    return StartingProcess(name, _launched(name, settings), settings.load_timeout_s)


@cache
def parent_of_engines() -> ForkServer:
    """The one of this process: it has imported the engine, which takes longer than all else of a
    start."""
    return ForkServer("llm", "trivet.backends.llm.process.forked", SHORT_WAITS)


def _launched(name: str, settings: EngineSettings) -> Launched:
    given, output = orjson.dumps(settings.to_json()), (name, name)
    environment = _environment(settings)
    num_threads = settings.num_threads or len(os.sched_getaffinity(0))
    order = Order.of_caller(environment, num_threads, is_confined=False)
    # Where the system is short of something, starting one says of what.
    with suppress(CannotFork, OSError):
        named = b"\0".join((name.encode(), given))
        return launch_forked(parent_of_engines(), order, named, output, _SOCKET_BYTES)
    module = "trivet.backends.llm.process.child"
    return launch(
        module, [name], given, output, environment=environment, socket_bytes=_SOCKET_BYTES
    )


def _environment(settings: EngineSettings) -> dict[str, str]:
    environment = {**SHORT_WAITS, **os.environ}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
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
