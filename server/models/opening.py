"""Opens model versions in threads. Environments that they need are made first, in threads of their
own: installing packages takes minutes, and the loads of other models do not wait for it."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from trivet.backends.api import LoadFailed, Recipe, ServingError
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.loader import Loader, NotMade, Opened
from trivet.server.models.sleeping.budget import Sizes
from trivet.server.repository.layout import ModelFolder

log = logging.getLogger(__name__)
T = TypeVar("T")
_NUM_MAKERS = 4
"""Environments that are made side by side."""
_MOST_MADE = 3
"""For one load."""


class Opener:
    """Has the loader work, at most so many loads at a time. Used on the event loop."""

    def __init__(self, loader: Loader, *, threads: int, retries: int) -> None:
        """`retries`: how often a version that did not load is tried again at once."""
        self._loader = loader
        self._retries = retries
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="load")
        self._makers = ThreadPoolExecutor(_NUM_MAKERS, thread_name_prefix="environment")
        self._stop = threading.Event()

    async def plan(self, folder: ModelFolder, override_json: str | None) -> LoadPlan:
        """See Loader."""
        return await _in(self._threads, self._loader.plan, folder, override_json)

    async def estimate(self, plan: LoadPlan, version: int) -> Sizes:
        """See Loader."""
        return await _in(self._threads, self._loader.estimate, plan, version)

    async def open(self, plan: LoadPlan, version: int) -> Opened:
        """See Loader; with a few tries."""
        for attempt in range(1, self._retries + 1):
            with suppress(ServingError):
                return await self._open(plan, version)
            key, most = plan.folder.key, self._retries
            log.warning("model '%s' did not load; trying again, %d of %d", key, attempt, most)
        return await self._open(plan, version)

    async def _open(self, plan: LoadPlan, version: int) -> Opened:
        for _ in range(_MOST_MADE):
            try:
                return await _in(self._threads, self._loader.open, plan, version)
            except NotMade as wanted:
                recipe: Recipe = wanted.recipe
            # Afterwards it is there, unless the model wants another one by now.
            await _in(self._makers, self._loader.make, recipe, self._stop)
        raise LoadFailed(
            f"the environment of model '{recipe.model}' was made {_MOST_MADE} times and was gone, "
            "or another one was wanted, each time: does something else change the model's folder "
            "or --environment-cache?"
        )

    def stop_making(self) -> None:
        """Environments that are being made are given up: the server ends."""
        self._stop.set()

    def close(self) -> None:
        """Begins nothing more."""
        self.stop_making()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._makers.shutdown(wait=False, cancel_futures=True)


async def _in(threads: ThreadPoolExecutor, function: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, function, *arguments)
