"""A fake core and a server over it, for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest
from http_site import FakeCore, Site, open_site
from values import frozen_values


@pytest.fixture
def core() -> FakeCore:
    return FakeCore()


@pytest.fixture
async def site(core: FakeCore) -> AsyncIterator[Site]:
    opened = await open_site(core)
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    with frozen_values():
        yield
