"""Asks a shadow what another version was asked, after that has answered, and compares.

Nothing of it is a client's matter: the copy is made when the answer has gone out, waits in a queue
of its own until the version that answers has nothing waiting, and is dropped where that is full.
"""

import asyncio
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from enum import StrEnum

from trivet.backends.api import CancelToken, InferResponse, Measured, ServingError, Tensor
from trivet.server.models.model import Model
from trivet.server.models.shadowing import Shadow
from trivet.server.shadows.copies import Copy, on_own_memory
from trivet.server.shadows.differing import differences
from trivet.server.shadows.kept import KeptDifferences, shown

MOST_BYTES = 1024 * 1024
"""Of a request and its answer together; larger ones have no shadow: copying them takes time."""
MOST_MET = 0.005
"""Of the requests that the version which answers gets, so many at most find a shadow being
computed, which takes cores from them: less than one in a hundred, so that the 99th percentile
stays."""
MET_AT_FIRST = 5
"""So many may in any case: a version with few requests would else wait for its two hundredth."""
LOOK_S = 0.01
"""Between two looks whether the version that answers is idle."""
LOWEST = 19
"""Of the niceness of threads: they get what nobody else wants."""


class Verdict(StrEnum):
    """What became of a request that should have had a shadow."""

    SAME = "same"
    DIFFERENT = "different"
    FAILED = "failed"
    """The shadow did not answer."""
    SHED = "shed"
    """It was not asked: there was no time for it, or it was too large."""


def compare_threads() -> ThreadPoolExecutor:
    """One thread, of the lowest priority."""
    return ThreadPoolExecutor(1, thread_name_prefix="shadow", initializer=_step_back)


def _step_back() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)


class Mirror:
    """Of one model, to one shadow. Owned by the event loop."""

    def __init__(
        self,
        primary: Model,
        shadow: Model,
        setting: Shadow,
        counts: Counter[Verdict],
        *,
        kept: KeptDifferences,
        thread: ThreadPoolExecutor,
        note: Callable[[float], None],
    ) -> None:
        """`note` hears 1 for each difference or failure, and 0 for an equal answer."""
        self._primary = primary
        self._shadow = shadow
        self._setting = setting
        self._counts = counts
        self._kept = kept
        self._thread = thread
        self._note = note
        self._waiting: deque[Copy] = deque()
        self._running: set[CancelToken] = set()
        self._owed = 0.0
        self._num_seen = 0
        """Requests that were answered since it began."""
        self._num_met = 0
        """Those that were computed while the shadow was, too."""
        self._timer: asyncio.TimerHandle | None = None
        self._classes = frozenset(primary.labels)
        executor = primary.executor
        self._engine = executor if isinstance(executor, Measured) else None

    def offer(self, make: Callable[[], Copy], size_bytes: int) -> None:
        """A request has been answered: `make` copies both, which are so large together."""
        self._num_seen += 1
        if self._running:
            self._num_met += 1
        if not self._is_chosen():
            return
        if len(self._waiting) >= self._setting.queue or size_bytes > MOST_BYTES:
            self._counts[Verdict.SHED] += 1
            return
        self._waiting.append(make())
        self._look_later()

    def _is_chosen(self) -> bool:
        self._owed += self._setting.percent
        if self._owed < 100.0:
            return False
        self._owed -= 100.0
        return True

    def is_of(self, primary: Model, shadow: Model, setting: Shadow) -> bool:
        """Whether it is the mirror of these."""
        return (self._primary, self._shadow, self._setting) == (primary, shadow, setting)

    def close(self) -> None:
        """Asks nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._counts[Verdict.SHED] += len(self._waiting)
        self._waiting.clear()
        for token in self._running:
            token.cancel()

    def _look_later(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        may_ask = self._is_idle() and self._num_met <= MET_AT_FIRST + MOST_MET * self._num_seen
        while may_ask and self._waiting and len(self._running) < self._setting.concurrency:
            self._ask(self._waiting.popleft())
        self._look_later()

    def _is_idle(self) -> bool:
        """Whether nothing waits for the version that answers."""
        if self._engine is not None and self._engine.stats.get("waiting", 0.0):
            return False
        return self._primary.statistics.pending == 0

    def _ask(self, copy: Copy) -> None:
        token = CancelToken()
        self._running.add(token)
        copy.ask(self._shadow, token, _ShadowSink(self, copy, token))

    def _end(self, token: CancelToken) -> None:
        """A shadow is computed and compared."""
        self._running.discard(token)
        self._num_met += self._primary.statistics.pending

    def answered(self, copy: Copy, token: CancelToken, response: InferResponse) -> None:
        """The shadow has answered."""
        if token.cancelled:  # nobody compares any more, and no thread may be there for it
            self._end(token)
            return
        outputs = [on_own_memory(tensor) for tensor in response.outputs]
        loop = asyncio.get_running_loop()
        told = loop.run_in_executor(self._thread, self._compare, copy, outputs)
        told.add_done_callback(lambda ended: self._compared(token, ended))

    def failed(self, copy: Copy, token: CancelToken, error: ServingError) -> None:
        """It has not."""
        self._end(token)
        if token.cancelled:
            return
        self._counts[Verdict.FAILED] += 1
        self._note(1.0)
        self._thread.submit(self._keep, copy, [f"the shadow failed: {error.message}"], ())

    def _compare(self, copy: Copy, outputs: Sequence[Tensor]) -> bool:
        """In the thread."""
        found = differences(copy.outputs, outputs, self._setting, self._classes)
        if found:
            self._keep(copy, found, outputs)
        return bool(found)

    def _compared(self, token: CancelToken, ended: "asyncio.Future[bool]") -> None:
        self._end(token)
        if ended.cancelled() or ended.exception() is not None:
            self._counts[Verdict.FAILED] += 1
            return
        differs = ended.result()
        self._counts[Verdict.DIFFERENT if differs else Verdict.SAME] += 1
        self._note(float(differs))

    def _keep(self, copy: Copy, found: Sequence[str], outputs: Sequence[Tensor]) -> None:
        setting = self._setting
        self._kept.keep(
            self._primary.key,
            {
                "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "request": copy.request_id,
                "version": self._primary.version,
                "shadow": self._shadow.version,
                "differences": list(found),
                "inputs": shown(copy.inputs, setting),
                "outputs": shown(copy.outputs, setting),
                "shadow_outputs": shown(outputs, setting),
            },
        )


class _ShadowSink:
    """Where the shadow's answer goes: of several responses the first counts."""

    __slots__ = ("_copy", "_is_ended", "_mirror", "_token")

    def __init__(self, mirror: Mirror, copy: Copy, token: CancelToken) -> None:
        self._mirror = mirror
        self._copy = copy
        self._token = token
        self._is_ended = False

    def send(self, response: InferResponse, *, final: bool) -> None:  # noqa: ARG002
        if not self._is_ended:
            self._is_ended = True
            self._mirror.answered(self._copy, self._token, response)

    def finish(self) -> None:
        self.fail(ServingError("it has no answer"))

    def fail(self, error: ServingError) -> None:
        if not self._is_ended:
            self._is_ended = True
            self._mirror.failed(self._copy, self._token, error)
