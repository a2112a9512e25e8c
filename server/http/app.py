"""The HTTP front room: its route table, and the server that listens for it."""

import asyncio

from trivet.server.auth.tls import Tls, socket_options
from trivet.server.console.room import ConsoleRoom
from trivet.server.core import Core
from trivet.server.http.anthropic.errors import fault as anthropic_fault
from trivet.server.http.connection import Connection
from trivet.server.http.console import ConsoleRoutes
from trivet.server.http.door import Door
from trivet.server.http.gate import Gate
from trivet.server.http.generate import Generate
from trivet.server.http.health import Health
from trivet.server.http.infer import Infer
from trivet.server.http.language import Language
from trivet.server.http.limits import HttpLimits
from trivet.server.http.listener import Listener
from trivet.server.http.logging import LogSettings
from trivet.server.http.metadata import Metadata
from trivet.server.http.openai.errors import fault
from trivet.server.http.openapi import OpenApi
from trivet.server.http.releases import ReleaseRoutes
from trivet.server.http.repository import Repository
from trivet.server.http.request_ids import RequestIds
from trivet.server.http.routes import RouteTable
from trivet.server.http.shared_memory import SharedMemoryRoutes
from trivet.server.http.trace import TraceSettings
from trivet.server.protocol.forwarding import Forwarding
from trivet.server.sockets import notice_dead_peers

__all__ = ["HttpLimits", "HttpServer", "build_routes"]

_BACKLOG = 1024
_LATE_HEADS_PERIOD_S = 1.0


def build_routes(
    core: Core,
    limits: HttpLimits,
    language: Language,
    forwarding: Forwarding | None = None,
    console: ConsoleRoom | None = None,
) -> RouteTable:
    """All routes. The first row that fits a path answers it."""
    routes = [
        *Infer(core, limits, forwarding).routes(),
        *Health(core).routes(),
        *Metadata(core).routes(),
        *Generate(core, limits, forwarding).routes(),
        *Repository(core, limits).routes(),
        *ReleaseRoutes(core, limits).routes(),
        *SharedMemoryRoutes(core, limits).routes(),
        *TraceSettings(core, limits).routes(),
        *LogSettings(core, limits).routes(),
        *language.routes(),
        *([] if console is None else ConsoleRoutes(console).routes()),
    ]
    return RouteTable([*routes, *OpenApi(routes).routes()])


class HttpServer:
    """Listens on one address. The event loop owns it."""

    def __init__(
        self,
        core: Core,
        limits: HttpLimits,
        host: str,
        port: int,
        *,
        gate: Gate | None = None,
        tls: Tls | None = None,
        forwarding: Forwarding | None = None,
        console: ConsoleRoom | None = None,
    ) -> None:
        """Without a gate everybody may ask; without TLS it speaks plain text; without `forwarding`
        models see no headers; without `console` there is no page for people."""
        self._host = host
        self._port = port
        self._limits = limits
        ids = RequestIds()
        self._language = Language(core, limits)
        routes = build_routes(core, limits, self._language, forwarding, console)
        faults = {"/v1/messages": anthropic_fault, "/v1/": fault}
        door = Door(routes, ids, gate, core.tracing, faults)
        self._tls = tls
        self._door = door
        self._make_request_id = ids.make
        self._listener: Listener | None = None
        self._socket: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> int:
        """Binds and listens; returns the port, which the system chooses for port 0. Raises OSError
        when the address is taken."""
        loop = asyncio.get_running_loop()
        self._listener = Listener(
            self._door.handle, self._limits, self._make_request_id, self._connect
        )
        self._socket = await loop.create_server(
            self._listener, self._host, self._port, backlog=_BACKLOG, **socket_options(self._tls)
        )
        notice_dead_peers(self._socket)
        self._close_late_heads()
        port: int = self._socket.sockets[0].getsockname()[1]
        return port

    def _connect(self, listener: Listener) -> Connection:
        return Connection(listener, self._limits, self._door.at_once)

    async def prepare(self) -> None:
        """Imports what the models that are loaded by now need, before a client waits for it."""
        await self._language.prepare()

    @property
    def num_connections(self) -> int:
        """Those that are open."""
        return 0 if self._listener is None else len(self._listener.connections)

    def leave(self) -> None:
        """Every answer from now on is the last on its connection."""
        if self._listener is not None:
            self._listener.is_leaving = True

    async def drain(self, timeout_s: float) -> None:
        """Takes no new request and lets those in progress end for up to `timeout_s`; then
        cancels them. What was answered is sent in the same time."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._socket.close()
        if self._listener is not None:
            self._listener.pre_shutdown()
            self._language.leave(timeout_s)
            await self._listener.shutdown(timeout_s)
            await self._language.close()
            await self._listener.flush(until_s)

    async def close(self) -> None:
        """Stops at once: requests in progress are cancelled."""
        await self.drain(0.0)
        if self._listener is not None:
            self._listener.abort()
            await asyncio.sleep(0)  # Aborted transports close in a turn of their own.

    def _close_late_heads(self) -> None:
        assert self._listener is not None
        loop = asyncio.get_running_loop()
        self._listener.close_late_heads(loop.time())
        self._timer = loop.call_later(_LATE_HEADS_PERIOD_S, self._close_late_heads)
