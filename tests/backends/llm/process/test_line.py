"""The engine's end of its socket."""

import queue
import socket
import struct
import tracemalloc
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trivet.backends.api import Sampling
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.messages import MAX_FRAME_BYTES, Message, Quit, Submit, pack
from trivet.backends.llm.process.child import Line

NUM_MESSAGES = 50


class MeasuredInbox(queue.SimpleQueue[Message]):
    """Sends the next message once one is there, and measures what those behind the first take."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours
        self._num_left = NUM_MESSAGES
        self._first_bytes = 0
        self.most_bytes = 0
        # Beforehand: the packer takes a buffer for itself.
        self._next, self._last = pack(a_submit()), pack(Quit())

    def put(self, item: Message, *args: Any, **more: Any) -> None:
        now_bytes, peak_bytes = tracemalloc.get_traced_memory()
        if self._num_left == NUM_MESSAGES:
            self._first_bytes = now_bytes
            tracemalloc.reset_peak()
        else:
            self.most_bytes = peak_bytes - self._first_bytes
        self._num_left -= 1
        super().put(item)
        self._ours.sendall(self._next if self._num_left > 0 else self._last)


def a_submit() -> Submit:
    return Submit("1", [1, 2, 3], Sampling(), 0, [], [])


def test_messages_are_received_into_one_buffer() -> None:
    # What is allocated for each and given back leaves holes, and these stay.
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inbox = MeasuredInbox(ours)
        ours.sendall(pack(a_submit()))
        tracemalloc.start()
        try:
            Line(theirs, on_gone=lambda: None).read(cast(Engine, SimpleNamespace(inbox=inbox)))
        finally:
            tracemalloc.stop()
    assert inbox.qsize() == NUM_MESSAGES + 1
    # They are small, and none of them took as much as the buffer.
    assert 0 < inbox.most_bytes < 64 * 1024


def test_the_end_of_the_line_ends_the_engine() -> None:
    ours, theirs = socket.socketpair()
    gone = []
    with theirs:
        ours.sendall(pack(a_submit())[:-1])  # cut off
        ours.close()
        inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        line = Line(theirs, on_gone=lambda: gone.append(True))
        line.read(cast(Engine, SimpleNamespace(inbox=inbox)))
    assert isinstance(inbox.get_nowait(), Quit)
    assert line.gone.is_set()
    assert gone == [True]


@pytest.mark.parametrize(
    "frame", [struct.pack("<I", MAX_FRAME_BYTES + 1), struct.pack("<I", 1) + b"x"]
)
def test_what_cannot_be_read_ends_the_engine(
    frame: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It would go on saying that it lives, and answer nobody."""
    ours, theirs = socket.socketpair()
    gone = []
    with ours, theirs:
        ours.sendall(frame)
        inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        line = Line(theirs, on_gone=lambda: gone.append(True))
        line.read(cast(Engine, SimpleNamespace(inbox=inbox)))
    assert isinstance(inbox.get_nowait(), Quit)
    assert line.gone.is_set()
    assert gone == [True]
    assert "the server sent nonsense" in caplog.text
