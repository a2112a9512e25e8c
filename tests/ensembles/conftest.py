"""The room that ensembles are tested in."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from ensemble_room import Room
from values import frozen_values


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    """Closed afterwards; nothing may have been raised into the event loop meanwhile, where nobody
    hears of it."""
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    made = Room()
    yield made
    await made.close()
    assert raised == []


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    with frozen_values():
        yield
