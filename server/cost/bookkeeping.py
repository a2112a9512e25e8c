"""Writes the ledger down from time to time, and for the last time when the server ends."""

import asyncio
from contextlib import suppress

from trivet.server.cost.ledger import Ledger

PERIOD_S = 10.0


class Bookkeeping:
    """Owns the task that does it. The files are small: a line for each model and key."""

    def __init__(self, ledger: Ledger, period_s: float = PERIOD_S) -> None:
        self._ledger = ledger
        self._period_s = period_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Ends, and writes what is new."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(self._ledger.write)
        self._ledger.close()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            # Not on the loop: a disk that is busy would hold up all requests.
            await asyncio.to_thread(self._ledger.put, self._ledger.take())
            await asyncio.to_thread(self._ledger.hear_others)
