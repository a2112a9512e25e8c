"""The server's side of an engine: who counts as silent."""

import asyncio
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from patience import patience

from trivet.backends.api import (
    Cause,
    InstanceDied,
    InvalidRequest,
    LoadFailed,
    QueueFull,
    Sampling,
)
from trivet.backends.llm.messages import (
    Abort,
    AdapterRead,
    FrameReader,
    Heartbeat,
    Message,
    Outputs,
    Submit,
    SubmittedImage,
    pack,
    pack_in_parts,
)
from trivet.backends.llm.process import client as client_module
from trivet.backends.llm.process.client import EngineClient
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

    def memory_bytes(self) -> int:
        return 0

    def ending(self) -> Ending:
        return Ending(Cause.SIGNAL, "killed")


class Listener:
    """Counts losses."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def on_outputs(self, outputs: Outputs) -> None: ...

    def on_adapter(self, read: AdapterRead) -> None: ...

    def on_back(self) -> None: ...

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
    async with asyncio.timeout(patience()):
        await listener.lost.wait()
    assert not client.is_ready
    await client.close()
    assert engine.was_killed
    theirs.close()


async def test_an_engine_that_does_not_start_again_is_tried_with_growing_pauses_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Requests are refused meanwhile, with the time of the next try."""
    ours, theirs = socket.socketpair()
    again_ours, again_theirs = socket.socketpair()
    starts: list[float] = []

    def start(name: str, settings: EngineSettings) -> FakeEngine:
        starts.append(time.monotonic())
        if len(starts) < 3:
            raise LoadFailed("no weights")
        return FakeEngine(again_ours)

    monkeypatch.setattr(client_module, "start_engine", start)
    monkeypatch.setattr(client_module, "_FIRST_DELAY_S", 0.1)
    client = EngineClient(FakeEngine(ours, was_killed=True), EngineSettings(""), Listener())
    theirs.close()  # as the death of its process does
    async with asyncio.timeout(patience()):
        while len(starts) < 2 or "0.4 s" not in client.trouble:
            await asyncio.sleep(0.01)
        assert client.trouble == (
            "the engine of model 'fake' did not start: no weights; the next start is in 0.4 s"
        )
        with pytest.raises(InstanceDied, match="is being restarted") as refused:
            client.submit(Submit("1", [1], Sampling(), 0, [], [], 0, ""))
        assert refused.value.retry_after_s == 0.4
        while not client.is_ready:
            await asyncio.sleep(0.01)
    assert starts[1] - starts[0] > 0.09
    assert starts[2] - starts[1] > 0.39
    assert client.trouble == ""
    assert client.deaths == {Cause.SIGNAL: 1}
    await client.close()
    again_theirs.close()


def with_images(*sizes: int) -> Submit:
    images = [SubmittedImage(b"d", 1, "", bytes(size)) for size in sizes]
    return Submit("1", [1], Sampling(), 0, [], [], images=images)


async def test_images_that_are_too_large_or_that_nobody_takes_in_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An engine ends with a frame that is too large, and each choice sends its images again."""
    monkeypatch.setattr(client_module, "MAX_FRAME_BYTES", 1_000_000)
    monkeypatch.setattr(client_module, "MAX_UNSENT_BYTES", 2_000_000)
    ours, theirs = socket.socketpair()
    client = EngineClient(FakeEngine(ours), EngineSettings(""), Listener())
    with pytest.raises(InvalidRequest, match=r"1200\d\d\d bytes with all images; at most 1000000"):
        client.submit(with_images(600_000, 600_000))
    for _ in range(2):
        client.submit(with_images(900_000))
    with pytest.raises(QueueFull, match="try again later"):
        client.submit(with_images(900_000))
    client.abort("1")  # is always taken
    await client.close()
    theirs.close()


async def test_an_image_is_sent_as_it_lies_and_comes_whole() -> None:
    message = with_images(3_000_000, 0, 7)
    parts = pack_in_parts(message)
    assert all(any(part is image.file for part in parts) for image in message.images)
    assert list(FrameReader().feed(b"".join(parts))) == [message]

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    client = EngineClient(FakeEngine(ours), EngineSettings(""), Listener())
    client.submit(message)
    client.abort("1")
    client.submit(Submit("2", [1], Sampling(), 0, [], []))
    loop, reader = asyncio.get_running_loop(), FrameReader()
    found: list[Message] = []
    async with asyncio.timeout(patience()):
        while len(found) < 3:
            found += reader.feed(await loop.sock_recv(theirs, 1 << 20))
    assert found == [message, Abort(["1"]), Submit("2", [1], Sampling(), 0, [], [])]
    await client.close()
    theirs.close()
