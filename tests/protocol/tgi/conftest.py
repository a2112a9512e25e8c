"""One server over the small language model that all tests of this folder share."""

from collections.abc import Iterator

import pytest
from llm_site import Call, caller, open_models
from serving import RunningServer


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    with open_models("smollm2") as opened:
        yield opened


@pytest.fixture
def call(server: RunningServer) -> Call:
    return caller(server)
