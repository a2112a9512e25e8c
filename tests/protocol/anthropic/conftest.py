"""Anthropic's client over the small language model that all tests share."""

from collections.abc import Iterator

import anthropic
import pytest
from llm_site import Call, caller
from patience import patience
from serving import RunningServer


@pytest.fixture(scope="session")
def server(language_server: RunningServer) -> RunningServer:
    return language_server


@pytest.fixture
def call(server: RunningServer) -> Call:
    return caller(server)


@pytest.fixture
def client(server: RunningServer) -> Iterator[anthropic.Anthropic]:
    """Unmodified; it does not try again, so that errors are seen."""
    with anthropic.Anthropic(
        base_url=f"http://{server.http}", api_key="none", max_retries=0, timeout=patience()
    ) as made:
        yield made
