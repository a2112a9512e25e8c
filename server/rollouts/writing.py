"""Brings records to a journal, and those of others from it: in a thread, in order."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from trivet.server.logs.outage import Outage
from trivet.server.rollouts.journal import Journal, Record
from trivet.server.rollouts.shortening import shortened

T = TypeVar("T")
log = logging.getLogger(__name__)
LOOK_S = 0.25
"""Between two looks for what others have written."""


class Writer:
    """Owned by the event loop."""

    def __init__(
        self,
        journal: Journal,
        hear: Callable[[list[Record]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`hear` gets what is read, on the event loop: also what this writer wrote."""
        self._journal = journal
        self._hear = hear
        self._clock = clock
        self._waiting: list[Record] = []
        self._is_due = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rollouts")
        self._task: asyncio.Task[None] | None = None
        self._outage = Outage()
        self._leads_to_s = 0.0

    @property
    def leads(self) -> bool:
        """Whether this server decides: where it hears nothing from others, only as long as these
        take it for the one."""
        return self._clock() < self._leads_to_s

    def write(self, record: Record) -> None:
        """Soon."""
        self._waiting.append(record)
        self._is_due.set()

    async def start(self) -> None:
        """Reads all that was written before. Raises OSError."""
        self._hear(await self._in_thread(self._journal.read))
        await self._lead()
        self._task = asyncio.ensure_future(self._go_on())

    async def close(self) -> None:
        """What waits is written; then another server may decide."""
        if self._task is not None:
            self._task.cancel()
            await self.exchange()
        try:
            await self._in_thread(self._journal.close)
        except OSError as error:
            # Whoever else decides finds out by the time that goes by; the server ends nevertheless.
            log.warning("roll-outs are not handed over: %s", error.strerror or error)
        self._thread.shutdown(wait=False)

    async def _go_on(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_due.wait(), LOOK_S)
            self._is_due.clear()
            await self.exchange()

    async def exchange(self) -> None:
        """Writes what waits, and reads what others wrote; an outage is told to the log."""
        waiting, self._waiting = self._waiting, []
        has_written = bool(waiting)
        try:
            if waiting:
                await asyncio.shield(self._in_thread(self._journal.append, waiting))
                waiting = []
            self._hear(await self._in_thread(self._journal.read))
            await self._lead()
            if has_written and self.leads:
                await asyncio.shield(self._in_thread(self._journal.shorten, shortened))
            self._outage.ends()
        except OSError as error:
            # What is decided counts meanwhile; it is written down when that is possible again.
            self._waiting = waiting + self._waiting
            if self._outage.goes_on():
                log.error("roll-outs cannot be written down: %s", error.strerror or error)  # noqa: TRY400

    async def _lead(self) -> None:
        asked_s = self._clock()
        self._leads_to_s = asked_s + await self._in_thread(self._journal.lead_s)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
