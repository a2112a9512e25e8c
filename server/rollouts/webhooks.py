"""Tells an address what happens to roll-outs: a POST of JSON for each event, in order."""

import http.client
import logging
import queue
import threading
import urllib.error
import urllib.request
from contextlib import suppress

from trivet.backends.api import InvalidConfig
from trivet.server.rollouts.journal import Record, as_json

log = logging.getLogger(__name__)
TIMEOUT_S = 10.0
TRIES = 3
PAUSE_S = 1.0
MOST_WAITING = 1000


class Webhook:
    """Owned by a thread of its own, which nobody waits for."""

    def __init__(self, url: str) -> None:
        """Raises InvalidConfig for what is no address."""
        if not url.startswith(("http://", "https://")):
            raise InvalidConfig(
                f"--rollout-webhook is to begin with http:// or https://, got '{url[:64]}'"
            )
        self._url = url
        self._waiting: queue.Queue[Record | None] = queue.Queue(MOST_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tell_all, name="webhook", daemon=True)
        self._thread.start()

    def happened(self, record: Record) -> None:
        """Never blocks: where too much waits, it is told no more."""
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            log.warning("the roll-out webhook is not told of '%s': it is slow", record["event"])

    def close(self) -> None:
        """What waits is told no more."""
        self._stop.set()
        with suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        self._waiting.put_nowait(None)

    def _tell_all(self) -> None:
        while (record := self._waiting.get()) is not None:
            for _ in range(TRIES):
                if self._is_told(record) or self._stop.wait(PAUSE_S):
                    break

    def _is_told(self, record: Record) -> bool:
        request = urllib.request.Request(  # noqa: S310 - __init__ has looked at it
            self._url, as_json(record), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
                return True
        except (OSError, ValueError, http.client.HTTPException) as error:
            log.warning("the roll-out webhook did not take '%s': %s", record["event"], error)
            return False
