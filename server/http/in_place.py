"""The rest of a large body, read from the socket into the memory that its tensors will lie in.

aiohttp hands a body on in pieces, each through a parser, a stream and a task, and every byte is
copied twice on the way: that costs as much as the kernel's own copies. Where the head is known
already there is nothing to be parsed in its body.
"""

import asyncio
from collections.abc import Callable

from trivet.server.http.body import Pace, aligned_memory
from trivet.server.http.connection import Connection

LARGE_BYTES = 128 * 1024
"""From here on it is worth to change who reads from the connection, twice."""


class BodyInPlace(asyncio.BufferedProtocol):
    """Takes a connection's place until the body is whole. Owned by the event loop."""

    def __init__(
        self,
        connection: Connection,
        size_bytes: int,
        align_at: int,
        begun: memoryview,
        whole: Callable[[memoryview], None],
        late: Callable[[], None],
    ) -> None:
        """`begun`: what has come of it. One of `whole` and `late` is called, with the connection in
        its place again, unless the client goes away before: then the connection is told."""
        self._connection = connection
        self._memory = aligned_memory(size_bytes, align_at)
        self._memory[: len(begun)] = begun
        self._num_read = len(begun)
        self._whole = whole
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(connection.limits, self._loop.time())
        self._pace.arrived(len(begun), self._loop.time())
        self._timer = self._loop.call_at(self._pace.due_s, self._look)
        self._read_by(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._memory[self._num_read :]

    def buffer_updated(self, nbytes: int) -> None:
        self._num_read += nbytes
        if self._num_read == len(self._memory):
            self._timer.cancel()
            self._read_by(self._connection)
            self._whole(self._memory)
        else:
            self._pace.arrived(nbytes, self._loop.time())

    def _look(self) -> None:
        """One timer, however often something comes."""
        if self._loop.time() < self._pace.due_s:
            self._timer = self._loop.call_at(self._pace.due_s, self._look)
            return
        self._read_by(self._connection)
        self._late()

    def _read_by(self, protocol: asyncio.BaseProtocol) -> None:
        transport = self._connection.transport
        if transport is None or transport.is_closing():
            return
        # How it reads is decided when it begins to.
        transport.pause_reading()
        transport.set_protocol(protocol)
        transport.resume_reading()

    # -- what is the connection's --------------------------------------------------------------

    def eof_received(self) -> bool:
        """Half a body is no request."""
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self._timer.cancel()
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
