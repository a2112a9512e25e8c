"""An event loop for models whose `execute` is a coroutine."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any


class CoroutineRunner:
    """One loop in one thread, for all coroutines of an instance; requests overlap in it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="coroutines", daemon=True)
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()
