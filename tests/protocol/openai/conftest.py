"""Clients of the server over the small language model that all tests share."""

from collections.abc import Iterator

import openai
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
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, unmodified; it does not try again, so that errors are seen."""
    with openai.OpenAI(
        base_url=f"http://{server.http}/v1", api_key="none", max_retries=0, timeout=patience()
    ) as made:
        yield made
