"""What the console's pages show beyond what all clients can ask: kept here while it is on."""

import asyncio
import logging
import time

from trivet.backends.device.nvml import Gpus
from trivet.server.auth.exposure import is_loopback
from trivet.server.console.history import PERIOD_S, History
from trivet.server.console.lines import RecentLines
from trivet.server.console.reading import MachineReader, ModelReader, Readable
from trivet.server.console.traces import RecentTraces
from trivet.server.settings import Settings


def is_on(settings: Settings) -> bool:
    """Whether there is a console: where only this machine can connect, unless it is asked for."""
    if settings.console == "auto":
        return is_loopback(settings.http_address)
    return settings.console == "true"


class ConsoleRoom:
    """An hour of charts, the last traces and the last lines of the log. Owned by the loop."""

    def __init__(self, gpus: Gpus) -> None:
        self.history = History(int(time.time() * 1e3))
        self.traces = RecentTraces()
        self.lines = RecentLines()
        self._machine = MachineReader(gpus)
        self._task: asyncio.Task[None] | None = None

    def start(self, core: Readable) -> None:
        """Begins to read counters and log lines."""
        logging.getLogger().addHandler(self.lines)
        self._task = asyncio.ensure_future(self._run(ModelReader(core)))

    async def close(self) -> None:
        """Reads no more."""
        logging.getLogger().removeHandler(self.lines)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, models: ModelReader) -> None:
        read_at_s = time.monotonic()
        while True:
            await asyncio.sleep(PERIOD_S)
            gpus = (
                await asyncio.to_thread(self._machine.read_gpus) if self._machine.has_gpus else {}
            )
            before_s, read_at_s = read_at_s, time.monotonic()
            seconds = read_at_s - before_s
            server = {**self._machine.read(seconds), **gpus}
            self.history.take(int(time.time() * 1e3), seconds, models.read(), server)
