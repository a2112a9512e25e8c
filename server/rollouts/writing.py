"""Brings records to a journal, and those of others from it: in a thread, in order."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from trivet.server.logs.outage import Outage
from trivet.server.rollouts.journal import Journal, Record

T = TypeVar("T")
log = logging.getLogger(__name__)
LOOK_S = 0.25
"""Between two looks for what others have written."""


class Writer:
    """Owned by the event loop."""

    def __init__(self, journal: Journal, hear: Callable[[list[Record]], None]) -> None:
        """`hear` gets what is read, on the event loop: also what this writer wrote."""
        self._journal = journal
        self._hear = hear
        self._waiting: list[Record] = []
        self._is_due = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rollouts")
        self._task: asyncio.Task[None] | None = None
        self._outage = Outage()
        self.leads = False
        """Whether this server decides."""

    def write(self, record: Record) -> None:
        """Soon."""
        self._waiting.append(record)
        self._is_due.set()

    async def start(self) -> None:
        """Reads all that was written before. Raises OSError."""
        self._hear(await self._in_thread(self._journal.read))
        self.leads = await self._in_thread(self._journal.leads)
        self._task = asyncio.ensure_future(self._go_on())

    async def close(self) -> None:
        """What waits is written; then another server may decide."""
        if self._task is not None:
            self._task.cancel()
            await self._exchange()
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
            await self._exchange()

    async def _exchange(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            if waiting:
                await asyncio.shield(self._in_thread(self._journal.append, waiting))
                waiting = []
            self._hear(await self._in_thread(self._journal.read))
            self.leads = await self._in_thread(self._journal.leads)
            self._outage.ends()
        except OSError as error:
            # What is decided counts meanwhile; it is written down when that is possible again.
            self._waiting = waiting + self._waiting
            if self._outage.goes_on():
                log.error("roll-outs cannot be written down: %s", error.strerror or error)  # noqa: TRY400

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
