"""Waits on the event loop for the reply of a process, which would else take a thread to wait."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from trivet.backends.process.channel import ChannelClosed
from trivet.backends.process.link import Link, Message

if TYPE_CHECKING:  # instance processes have no event loop
    from asyncio import AbstractEventLoop, TimerHandle

_LOOK_S = 0.02
"""After so long without a reply a thread waits for it: it passes on cancellations meanwhile."""


class ReplyWatch:
    """Of one link, on which one reply is awaited at a time. Owned by the event loop.

    It watches the link's socket by a descriptor of its own, so that nobody has to ask the loop
    before that is closed. A thread may read the link whenever nothing is expected here.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop: AbstractEventLoop | None = None
        self._fd: int | None = None
        """None while it does not watch."""
        self._replied: Callable[[bool], None] | None = None
        """Whom to tell of the reply that is expected."""
        self._reply: Message | None = None
        self._num_expected = 0
        self._timer: TimerHandle | None = None

    def watches(self, loop: "AbstractEventLoop") -> bool:
        """Begins to watch, if it does not yet; False where the system has no descriptor left."""
        if self._fd is not None:
            return True
        self._loop = loop
        try:
            self._fd = os.dup(self._link.channel.fileno())
            loop.add_reader(self._fd, self._read)
            # uvloop makes it non-blocking, and with it the socket that a thread may wait on.
            os.set_blocking(self._fd, True)
        except OSError:
            self._stop()
            return False
        return True

    def expect(self, replied: Callable[[bool], None]) -> None:
        """A reply will come to where it watches. `replied` is called once: with True when the reply
        can be taken; with False when a thread has to wait for it, or to see why there is none."""
        self._replied = replied
        self._num_expected += 1
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(_LOOK_S, self._look, self._num_expected)

    def take(self) -> Message | None:
        """The reply, if it has come here; from any thread."""
        reply, self._reply = self._reply, None
        return reply

    def _read(self) -> None:
        if self._replied is None:
            # A thread is reading, or the process has gone.
            self._stop()
            return
        try:
            header = self._link.channel.peek()
            if header is None and not self._link.channel.is_long:
                return
            # The rest of a long one, and new memory to be mapped, are for a thread.
            if header is not None and "region" not in header:
                self._reply = self._link.receive()
        except ChannelClosed:
            # Whoever reads next is told so, too.
            self._link.channel.hang_up()
        self._end(is_here=self._reply is not None)

    def _look(self, num_expected: int) -> None:
        """A time limit that costs nothing for each reply: two looks see the same one waited for."""
        self._timer = None
        if self._replied is None:
            return
        if num_expected == self._num_expected:
            self._end(is_here=False)
        elif self._loop is not None:
            self._timer = self._loop.call_later(_LOOK_S, self._look, self._num_expected)

    def _end(self, *, is_here: bool) -> None:
        replied, self._replied = self._replied, None
        assert replied is not None
        if not is_here:
            self._stop()
        replied(is_here)

    def _stop(self) -> None:
        if self._fd is not None and self._loop is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
