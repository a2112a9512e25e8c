"""How long a server waits for the models that it loads when it starts."""

import asyncio
from collections.abc import Sequence


async def failures(loads: "Sequence[asyncio.Future[str]]", *, waits_for_all: bool) -> list[str]:
    """The names of the models that failed, which loads give. A server that does not start without
    them waits for none of the others. What still loads when this is cancelled is, too."""
    until = asyncio.ALL_COMPLETED if waits_for_all else asyncio.FIRST_COMPLETED
    pending, failed = set(loads), list[str]()
    try:
        while pending and not failed:
            _, pending = await asyncio.wait(pending, return_when=until)
            failed = [name for each in loads if each.done() and (name := each.result())]
    except asyncio.CancelledError:
        for each in pending:
            each.cancel()
        raise
    return failed
