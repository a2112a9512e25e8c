"""A room of models for each test."""

from collections.abc import AsyncIterator

import pytest_asyncio
from ensemble_room import Room


@pytest_asyncio.fixture
async def room() -> AsyncIterator[Room]:
    """Models and ensembles in the test's own event loop."""
    made = Room()
    yield made
    await made.close()
