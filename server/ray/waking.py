"""Connections that come while no replica is ready: held until one is, then joined to it.

The one place where bytes pass through Python, and only those of requests that would else have been
refused.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from trivet.server.ray.slots import Replica

log = logging.getLogger(__name__)
_PIECE_BYTES = 1 << 16
_HEAD_BYTES = 4096
_NOT_READY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)

Wanted = Callable[[], Awaitable[Replica]]
"""Has Ray start a replica; returns one that is ready. Raises TimeoutError."""


class Waker:
    """Listens on loopback for one protocol. Owned by the way in's loop."""

    def __init__(self, wanted: Wanted, *, is_grpc: bool) -> None:
        self._wanted = wanted
        self._is_grpc = is_grpc
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listens; returns the port."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        """Takes no more."""
        if self._server is not None:
            self._server.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.read(_HEAD_BYTES)
            if not head:
                return
            if not self._is_grpc and is_probe(head):
                writer.write(_NOT_READY)
                return
            replica = await self._wanted()
            port = replica.grpc_port if self._is_grpc else replica.http_port
            there, back = await asyncio.open_connection(replica.host, port)
            try:
                back.write(head)
                await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))
            finally:
                back.close()
        except (OSError, TimeoutError) as error:
            log.warning("a request that waited for a replica is refused: %s", error)
        finally:
            writer.close()


def is_probe(head: bytes) -> bool:
    """Whether a request only asks how servers do, which is no reason to start one."""
    return head.startswith((b"GET /v2/health/", b"HEAD /v2/health/"))


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Until one side has nothing more to say, which the other is told, too."""
    with suppress(OSError):
        while piece := await source.read(_PIECE_BYTES):
            target.write(piece)
            await target.drain()
        target.write_eof()
