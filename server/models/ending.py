"""The end of a version that takes no more requests."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from trivet.server.models.model import Model
from trivet.server.models.routing import Routers
from trivet.server.scheduling.sequences.executor import SequenceExecutor

log = logging.getLogger(__name__)
SEQUENCES_S = 60.0
"""How long clients may go on with their sequences on a version that was replaced."""


async def end(model: Model, routers: Routers, on_end: Callable[[], None]) -> None:
    """Lets a version that left the registry answer what it has taken, frees it and says so."""
    await _finish_sequences(model, routers)
    await model.executor.drain()
    await model.executor.close()
    log.info("model '%s' version %d is unloaded", model.key, model.version)
    on_end()


async def _finish_sequences(model: Model, routers: Routers) -> None:
    """Lets clients finish their sequences on a version that has a successor, for a while."""
    router = routers.find(model.key)
    if router is None or not isinstance(model.executor, SequenceExecutor):
        return
    # The router looks for the version that has a sequence, and this one says that it has those too.
    successor = router.usual.model
    if isinstance(successor.executor, SequenceExecutor):
        successor.executor.inherit(model.executor)
        with suppress(TimeoutError):
            await asyncio.wait_for(model.executor.finish_sequences(), SEQUENCES_S)
