"""The cache in a Redis server, shared by servers of the same models.

Redis may be slow, full or gone: then requests are computed as if there were no cache.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from trivet.backends.api import InvalidConfig
from trivet.server.cache.entry import Entry, Found, decode, encode

log = logging.getLogger(__name__)

TIMEOUT_S = 0.5
"""For connecting, reading and writing: computing is the other choice."""
PAUSE_S = 1.0
"""After a failure, nothing is asked for so long."""
MAX_ENTRY_BYTES = 64 * 1024 * 1024
MAX_PENDING = 1024
"""Lookups and insertions at a time; beyond that requests are computed."""
PREFIX = b"trivet:"


class RedisCache:
    """Owned by the event loop."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Options: host, port, user, password, db. Raises InvalidConfig for others."""
        unknown = options.keys() - {"host", "port", "user", "password", "db"}
        if unknown:
            raise InvalidConfig(
                f"--cache-config redis,{min(unknown)}=: known are host, port, user, password and db"
            )
        self._client = redis.asyncio.Redis(
            host=options.get("host", "localhost"),
            port=_number(options, "port", 6379),
            db=_number(options, "db", 0),
            username=options.get("user"),
            password=options.get("password"),
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            # A second try would make the request wait once more: computing is its second try.
            retry=Retry(NoBackoff(), 0),
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused_until_s = 0.0

    def find(self, key: bytes, found: Found) -> None:
        """Calls `found` when Redis has answered or failed."""
        if self._is_usable():
            self._spawn(self._find(key, found))
        else:
            found(None)

    def keep(self, key: bytes, entry: Entry) -> None:
        """Begins to store."""
        if self._is_usable() and entry.nbytes <= MAX_ENTRY_BYTES:
            self._spawn(self._keep(key, encode(entry)))

    async def close(self) -> None:
        """Ends what is in progress and the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def _is_usable(self) -> bool:
        return len(self._tasks) < MAX_PENDING and time.monotonic() >= self._paused_until_s

    async def _find(self, key: bytes, found: Found) -> None:
        entry = None
        try:
            data = await self._client.get(PREFIX + key)
            if isinstance(data, bytes):
                entry = decode(data)
        except (RedisError, OSError) as error:
            self._pause(error)
        finally:
            found(entry)

    async def _keep(self, key: bytes, data: bytes) -> None:
        try:
            await self._client.set(PREFIX + key, data)
        except (RedisError, OSError) as error:
            self._pause(error)

    def _pause(self, error: Exception) -> None:
        if time.monotonic() >= self._paused_until_s:
            log.warning("the Redis cache failed, requests are computed: %s", error)
        self._paused_until_s = time.monotonic() + PAUSE_S

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _number(options: Mapping[str, str], name: str, default: int) -> int:
    text = options.get(name, str(default))
    if not text.isdigit():
        raise InvalidConfig(f"--cache-config redis,{name}={text}: must be a number")
    return int(text)
