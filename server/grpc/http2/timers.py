"""When a connection is pinged, told to go, or given up."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from trivet.server.grpc.http2.options import Http2Options

TOO_OLD = "the connection has reached its maximum age; please call again"


class Ageing(Protocol):
    """What the timers do to a connection."""

    def ping(self) -> bool:
        """Asks whether the client is there; False: not this time."""

    def abort(self) -> None:
        """It is not."""

    def go_away(self) -> None:
        """Takes no more calls."""

    def end(self, text: str) -> None:
        """Fails all calls and closes."""


class Timers:
    """One connection's. Starts with the wait for the client's greeting."""

    def __init__(self, options: Http2Options, connection: Ageing) -> None:
        self._options = options
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._handles: dict[str, asyncio.TimerHandle] = {}
        self._heard_s = self._pinged_s = self._loop.time()
        self._set("greeting", options.handshake_timeout_s, connection.abort)
        self._set("age", options.max_connection_age_s, self._too_old)
        self._set("keepalive", options.keepalive_s, self._check)

    def greeted(self) -> None:
        """The client's SETTINGS have come."""
        greeting = self._handles.pop("greeting", None)
        if greeting is not None:
            greeting.cancel()

    def heard(self) -> None:
        """Anything has come."""
        self._heard_s = self._loop.time()

    def cancel(self) -> None:
        """The connection is gone."""
        for handle in self._handles.values():
            handle.cancel()

    def _set(self, name: str, delay_s: float, callback: Callable[[], None]) -> None:
        if delay_s > 0:
            self._handles[name] = self._loop.call_later(delay_s, callback)

    def _check(self) -> None:
        silent_s = self._loop.time() - self._heard_s
        if silent_s < self._options.keepalive_s:
            self._set("keepalive", self._options.keepalive_s - silent_s, self._check)
            return
        self._pinged_s = self._loop.time()
        if not self._connection.ping():
            self._set("keepalive", self._options.keepalive_s, self._check)
            return
        self._set("keepalive", self._options.keepalive_timeout_s, self._check_answer)

    def _check_answer(self) -> None:
        if self._heard_s < self._pinged_s:
            self._connection.abort()
        else:
            self._set("keepalive", self._options.keepalive_s, self._check)

    def _too_old(self) -> None:
        self._connection.go_away()
        grace_s = self._options.max_connection_age_grace_s
        self._set("age", grace_s, lambda: self._connection.end(TOO_OLD))
