"""Requests refuse to be written to."""

from collections.abc import Iterator

import pytest
from values import frozen_values


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    with frozen_values():
        yield
