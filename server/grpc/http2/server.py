"""The listening gRPC server on our own HTTP/2; satisfies the seam in `transport.py`."""

import asyncio
import contextlib
import logging

from trivet.server.auth.tls import Tls, socket_options
from trivet.server.grpc.http2.connection import Connection
from trivet.server.grpc.http2.options import Http2Options
from trivet.server.grpc.transport import Rows
from trivet.server.sockets import notice_dead_peers

log = logging.getLogger(__name__)
BACKLOG = 1024
SHUTTING_DOWN = "the server is shutting down"


class Http2Transport:
    """Serves RPC rows. Owned by the event loop."""

    def __init__(
        self,
        rows: Rows,
        *,
        host: str,
        port: int,
        options: Http2Options,
        tls: Tls | None = None,
    ) -> None:
        """Without TLS it speaks plain text."""
        self._tls = tls
        self._rows = rows
        self._host = host
        self._port = port
        self._options = options
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._all_closed = asyncio.Event()
        self._is_draining = False

    async def start(self) -> int:
        """Binds and listens; returns the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._connect,
                self._host,
                self._port,
                backlog=BACKLOG,
                **socket_options(self._tls),
            )
        except OSError as error:
            text = f"gRPC cannot listen on {self._host}:{self._port}: {error.strerror or error}"
            raise OSError(text) from None
        notice_dead_peers(self._server)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def drain(self, timeout_s: float) -> None:
        """Takes no new call, lets calls in progress end for up to `timeout_s`, then closes."""
        self._is_draining = True
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.go_away()
        await self._wait_closed(timeout_s)
        for connection in list(self._connections):
            connection.end(SHUTTING_DOWN)
        await self._wait_closed(1.0)
        for connection in list(self._connections):
            connection.abort()

    def _connect(self) -> Connection:
        return Connection(self._rows, self._options, self._on_made, self._on_lost)

    def _on_made(self, connection: Connection) -> None:
        """Under TLS not before the handshake: a failed one is never made, nor lost."""
        self._connections.add(connection)
        if len(self._connections) > self._options.max_connections:
            log.warning(
                "a gRPC connection is refused: %d are open (--grpc-max-connections)",
                self._options.max_connections,
            )
            connection.refuse("too many connections")
        elif self._is_draining:
            connection.go_away()

    def _on_lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if self._is_draining and not self._connections:
            self._all_closed.set()

    async def _wait_closed(self, timeout_s: float) -> None:
        if self._connections and timeout_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_closed.wait(), timeout_s)
