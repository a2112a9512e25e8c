"""The thread that keeps one mirror up to date: when it is asked to, and every now and then."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Protocol

from trivet.server.remote.cache import Stopped
from trivet.server.remote.source import Doubtful, RemoteError, Unreachable

log = logging.getLogger(__name__)
SETTLE_S = 2.0
"""What is new must be the same for so long where nobody waits for it, or until the next round."""
NUM_STARTS = 5
START_PAUSE_S = 1.0
"""At the start: rounds in which models that are being written are waited for, and between them."""


class Followed(Protocol):
    """What is kept up to date: a Mirror."""

    def sync(self, *, settle_s: float, bar: bool = False) -> bool:
        """One round; whether something is being written and waits for the next. Raises RemoteError,
        OSError and Stopped."""

    def restore(self) -> bool:
        """Takes what was there last time; returns whether there is anything now. Raises OSError."""


@dataclass(frozen=True, slots=True)
class _Round:
    """One that somebody waits for."""

    is_first: bool = False
    bar: bool = False
    done: "Future[None]" = field(default_factory=Future)

    def begin(self) -> bool:
        """Whether anybody waits still; from now on nobody can leave."""
        return self.done.set_running_or_notify_cancel()


class Follower:
    """Owns its mirror and one thread, which does nothing before it is asked to."""

    def __init__(self, mirror: Followed, address: str, stop: Event) -> None:
        """`stop` is set before `close`."""
        self._mirror = mirror
        self._address = address
        self._stop = stop
        self._asked: SimpleQueue[_Round | None] = SimpleQueue()
        self._poll_s: float | None = None
        self._notice: Callable[[], None] = _nobody
        self._is_out = False
        """Whether the source could not be read the last time, which has been said then."""
        self._thread = Thread(target=self._run, name="remote", daemon=True)
        self._thread.start()

    def start(self, *, bar: bool) -> "Future[None]":
        """The first round: raises RemoteError or OSError if it gives nothing to serve."""
        return self._ask(_Round(is_first=True, bar=bar))

    def sync(self) -> "Future[None]":
        """A round that begins after this call; raises RemoteError or OSError."""
        return self._ask(_Round())

    def follow(self, poll_s: float, notice: Callable[[], None]) -> None:
        """From now on a round every so often. `notice` is called in the thread, after each."""
        self._poll_s, self._notice = poll_s, notice
        self._asked.put(None)

    def close(self, timeout_s: float) -> bool:
        """Ends the thread; returns whether it has ended. It may hang in a dead network."""
        self._asked.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _ask(self, asked: _Round) -> "Future[None]":
        self._asked.put(asked)
        if self._stop.is_set():
            self._turn_away()
        return asked.done

    def _turn_away(self) -> None:
        """Whoever waits when nothing is done any more."""
        with suppress(Empty):
            while True:
                asked = self._asked.get_nowait()
                if asked is not None and asked.begin():
                    asked.done.set_exception(Stopped())

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._stop.is_set():
            asked = None
            try:
                # Without polls: until somebody asks.
                wait_s = None if self._poll_s is None else max(0.0, due_s - time.monotonic())
                asked = self._asked.get(timeout=wait_s)
            except Empty:
                self._poll()
            if asked is not None:
                self._serve([asked, *self._also_asked()])
            else:
                due_s = time.monotonic() + (self._poll_s or 0.0)
        self._turn_away()

    def _also_asked(self) -> list[_Round]:
        """Who waits already: one round answers all."""
        found = []
        with suppress(Empty):
            while True:
                found.append(self._asked.get_nowait())
        return [asked for asked in found if asked is not None]

    def _serve(self, asked: list[_Round]) -> None:
        waiting = [each for each in asked if each.begin()]
        if not waiting:
            return
        error = self._error_of(waiting)
        for each in waiting:
            if error is None:
                each.done.set_result(None)
            else:
                each.done.set_exception(error)
        self._notice()

    def _error_of(self, waiting: list[_Round]) -> Exception | None:
        """Makes the round."""
        try:
            if self._stop.is_set():
                return Stopped()
            if any(each.is_first for each in waiting):
                self._first(bar=any(each.bar for each in waiting))
            else:
                self._mirror.sync(settle_s=0.0)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            return error
        return None

    def _first(self, *, bar: bool) -> None:
        try:
            for _ in range(NUM_STARTS):
                if not self._mirror.sync(settle_s=0.0, bar=bar):
                    return
                if self._stop.wait(START_PAUSE_S):
                    raise Stopped
        except (RemoteError, OSError) as error:
            self._is_out = True
            if not isinstance(error, Unreachable | Doubtful) or not self._mirror.restore():
                raise
            log.warning("%s; serving what was there last time", error)

    def _poll(self) -> None:
        try:
            self._mirror.sync(settle_s=min(SETTLE_S, self._poll_s or 0.0))
        except Stopped:
            return
        except (RemoteError, OSError) as error:
            # Words that change are of the same trouble: a line for each would be one for each look.
            level = logging.DEBUG if self._is_out else logging.WARNING
            self._is_out = True
            log.log(level, "%s; what serves goes on serving", error)
        except Exception:  # the next round may go better
            log.exception("%s: a round failed unexpectedly", self._address)
        else:
            if self._is_out:
                self._is_out = False
                log.info("%s can be read again", self._address)
        self._notice()


def _nobody() -> None:
    pass
