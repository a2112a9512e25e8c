"""Follows the repositories by events or by looking again; acts on a folder once it is still."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from watchfiles import awatch

from trivet.server.logs.outage import Outage
from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.plan import Action, plan
from trivet.server.repository.scan import RepositoryUnreadableError, Snapshot, scan

log = logging.getLogger(__name__)
Apply = Callable[[tuple[Action, ...]], None]
Owed = Callable[[], Collection[str]]
"""The models to load again although their folders are as they were."""
Look = Callable[[], Snapshot]
"""What lies in the repositories now. Raises RepositoryUnreadableError."""
EVENT_STEP_MS = 50
SETTLE_S = 0.25
"""A folder that has not changed for so long is taken as completely copied."""


class Settling:
    """Tells which folders of a snapshot have been still long enough. Pure: gets the time."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._seen: dict[str, tuple[ModelFolder, float]] = {}

    def settled(self, snapshot: Snapshot, applied: Snapshot, now_s: float) -> tuple[Snapshot, bool]:
        """The snapshot with folders that still change as they were in `applied`, and whether all
        are still. A folder's clock starts when it is first seen in a state."""
        models = dict(snapshot.models)
        problems = dict(snapshot.problems)
        all_still = True
        for name, folder in snapshot.models.items():
            if applied.models.get(name) == folder:
                self._seen.pop(name, None)
                continue
            seen = self._seen.get(name)
            if seen is None or seen[0] != folder:
                seen = self._seen[name] = (folder, now_s)
            if now_s - seen[1] >= self._settle_s:
                continue
            all_still = False
            if name in applied.models:
                models[name] = applied.models[name]
                continue
            del models[name]
            if name in applied.problems:
                # Its folder can be used again. Until it is, what serves of it must not be unloaded.
                problems[name] = applied.problems[name]
        for name in self._seen.keys() - snapshot.models.keys():
            del self._seen[name]
        return Snapshot(models, problems), all_still


class Watcher:
    """Calls `apply` with what has to change. Owned by the event loop; one task."""

    def __init__(
        self,
        roots: Sequence[Path],
        mode: str,
        *,
        poll_secs: float,
        applied: Snapshot,
        apply: Apply,
        owed: Owed = tuple,
        look: Look | None = None,
        settle_s: float = SETTLE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`look`: where that is more than what lies in the roots."""
        self._roots = roots
        self._scan = look or partial(scan, roots)
        self._watches_events = mode == "watch"
        self._poll_s = poll_secs
        self._settling = Settling(settle_s)
        self._settle_s = settle_s
        self._apply = apply
        self._owed = owed
        self._monotonic = monotonic
        self._owed_due_s = monotonic() + poll_secs
        """When to try the owed again: looks are more frequent while files change."""
        self.applied = applied
        """What has been handed to `apply` so far."""
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._outage = Outage()
        self._events_outage = Outage()

    async def start(self) -> None:
        """Begins to follow."""
        self._tasks.append(asyncio.ensure_future(self._follow()))
        if self._watches_events:
            self._tasks.append(asyncio.ensure_future(self._listen()))

    def notice(self) -> None:
        """Has it look soon: something may have changed without an event."""
        self._changed.set()

    async def close(self) -> None:
        """Stops following."""
        self._stop.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        """Turns file events into looks; after a failure the periodic look is what is left."""
        while not self._stop.is_set():
            try:
                async for _ in awatch(
                    *self._roots, step=EVENT_STEP_MS, debounce=200, stop_event=self._stop
                ):
                    self._changed.set()
            except (OSError, RuntimeError) as error:
                if self._events_outage.goes_on():
                    log.warning(
                        "file events are not available (%s); looking every %s s instead",
                        error,
                        self._poll_s,
                    )
                await asyncio.sleep(self._poll_s)

    async def _follow(self) -> None:
        while True:
            is_due = self._monotonic() >= self._owed_due_s
            all_still = await self._look(with_owed=is_due)
            now_s = self._monotonic()
            if is_due:
                self._owed_due_s = now_s + self._poll_s
            wait_s = min(
                self._poll_s if all_still else self._settle_s, max(0.0, self._owed_due_s - now_s)
            )
            try:
                await asyncio.wait_for(self._changed.wait(), wait_s)
            except TimeoutError:
                pass
            else:
                # Without it a folder that is being written would be scanned without a pause.
                await asyncio.sleep(EVENT_STEP_MS / 1000)
            self._changed.clear()

    async def _look(self, *, with_owed: bool) -> bool:
        """One scan and what follows from it; returns whether every folder is still."""
        try:
            found = await asyncio.to_thread(self._scan)
        except RepositoryUnreadableError as error:
            if self._outage.goes_on():
                log.error("%s; what serves goes on serving", error)  # noqa: TRY400 - no traceback
            return True
        if self._outage.ends():
            log.info("the model repository can be read again")
        target, all_still = self._settling.settled(found, self.applied, self._monotonic())
        # A folder that changes just now is loaded when it is still.
        names = self._owed() if with_owed else ()
        owed = [n for n in names if found.models.get(n) == self.applied.models.get(n)]
        actions = plan(target, self.applied, owed)
        self.applied = target
        if actions:
            self._apply(actions)
        return all_still
