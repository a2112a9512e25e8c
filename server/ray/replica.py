"""What Ray Serve places, restarts and counts: it keeps one server and says where that is."""

import logging
import threading
import time
import uuid
from typing import Any

import ray

from trivet.server.ray.group import CHECK_PERIOD_S, Group
from trivet.server.ray.server_process import ServerProcess
from trivet.server.ray.slots import Replica
from trivet.server.ray.ways_in import WaysIn

log = logging.getLogger(__name__)
_OPENING_S = 60.0
"""How long a way in may take to open before it is asked again."""
_LOOK_PERIOD_S = 5.0
"""Time between two looks for ways in."""


class ServerEnded(Exception):
    """The server of a replica is no more, or says nothing."""


class Server:
    """What a deployment is of. Its thread owns the server; Serve's calls come from others."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        """Returns when the server is ready. Raises ServerEnded when it ends instead."""
        self._server: ServerProcess | None = None
        self._thread: threading.Thread | None = None
        self._is_ready = threading.Event()
        self._is_ended = threading.Event()
        self._stop = threading.Event()
        self._group = Group.of(arguments)
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._thread.start()
        self._await_readiness()

    async def wake(self) -> None:
        """What a way in asks while there is no replica: that there be one."""

    async def __call__(self) -> None:
        """Serve wants one. Requests come by the ways in."""

    def check_health(self) -> None:
        """Serve's question; raises ServerEnded, for which it starts another replica."""
        server = self._server
        if server is None or server.exit_code is not None:
            raise ServerEnded(f"the server of group '{self._group.name}' has ended")
        if not self._stop.is_set() and not server.is_live():
            raise ServerEnded(f"the server of group '{self._group.name}' does not answer")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve's question: what `scaling` decides by."""
        return self._server.load() if self._server is not None else {}

    def __del__(self) -> None:
        """Serve's way to end a replica: its server drains first."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self._group.end_s)

    def _await_readiness(self) -> None:
        ends_at_s = time.monotonic() + self._group.longest_load_s
        while not self._is_ready.wait(0.1):
            if self._is_ended.is_set():
                raise ServerEnded(
                    f"a server of group '{self._group.name}' has ended before it was ready; the "
                    "replica's log has its lines"
                )
            if time.monotonic() > ends_at_s:
                self._stop.set()
                raise ServerEnded(
                    f"a server of group '{self._group.name}' was not ready within "
                    f"{self._group.longest_load_s:g} s (longest_load_s), or no way in to it; the "
                    "replica's log has the reason"
                )

    # -- the thread ----------------------------------------------------------------------------

    def _keep(self) -> None:
        host = ray.util.get_node_ip_address()
        name = uuid.uuid4().hex
        server = self._server = ServerProcess(self._group, host)
        ways = WaysIn(self._group)
        replica = Replica(name, host, server.http_port, server.grpc_port)
        looked_s = float("-inf")
        while not self._stop.wait(CHECK_PERIOD_S if self._is_ready.is_set() else 0.1):
            if server.exit_code is not None:
                break
            if not self._is_ready.is_set() and not server.is_ready():
                continue
            try:
                if time.monotonic() - looked_s > _LOOK_PERIOD_S:
                    ways.look()
                    looked_s = time.monotonic()
                if self._is_ready.is_set():
                    ways.say(replica)
                else:
                    ways.open(replica, _OPENING_S)
                    self._is_ready.set()
            except ray.exceptions.RayError as error:
                log.warning("ways in cannot be told of this replica: %s", error)
        server.stop(self._group.end_s)
        ways.release(name)
        self._is_ended.set()
