"""The server's side of an engine: who counts as silent."""

import asyncio
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from trivet.backends.api import Cause
from trivet.backends.llm import client as client_module
from trivet.backends.llm.client import EngineClient
from trivet.backends.llm.messages import Heartbeat, Outputs, pack
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.process.ending import Ending


@dataclass
class FakeEngine:
    """Loaded, at the other end of a socket."""

    socket: socket.socket
    name: str = "fake"
    info: dict[str, Any] = field(default_factory=dict)
    early: tuple[()] = ()
    was_killed: bool = False

    def is_running(self) -> bool:
        return not self.was_killed

    def kill(self) -> None:
        self.was_killed = True
        self.socket.close()

    def look(self) -> None: ...

    def ending(self) -> Ending:
        return Ending(Cause.SIGNAL, "killed")


class Listener:
    """Counts losses."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def on_outputs(self, outputs: Outputs) -> None: ...

    def on_lost(self, error: Exception) -> None:
        self.lost.set()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_WATCH_S", 0.05)


@pytest.mark.usefixtures("quick")
async def test_engine_is_not_lost_because_the_server_stood_still() -> None:
    ours, theirs = socket.socketpair()
    engine, listener = FakeEngine(ours), Listener()
    client = EngineClient(engine, EngineSettings("", heartbeat_timeout_s=1.0), listener)
    time.sleep(1.3)  # as in a machine that is paused: no timer and no reader of ours runs
    theirs.send(pack(Heartbeat(0.0, {})))
    await asyncio.sleep(0.2)
    assert not listener.lost.is_set()
    assert client.is_ready
    await client.close()
    theirs.close()


@pytest.mark.usefixtures("quick")
async def test_engine_that_is_silent_while_the_server_looks_is_lost() -> None:
    ours, theirs = socket.socketpair()
    engine, listener = FakeEngine(ours), Listener()
    client = EngineClient(engine, EngineSettings("", heartbeat_timeout_s=1.0), listener)
    async with asyncio.timeout(5):
        await listener.lost.wait()
    assert not client.is_ready
    await client.close()
    assert engine.was_killed
    theirs.close()
