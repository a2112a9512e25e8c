"""Requests to the server over the small language model that all tests share."""

import pytest
from llm_site import Call, caller
from serving import RunningServer


@pytest.fixture(scope="session")
def server(language_server: RunningServer) -> RunningServer:
    return language_server


@pytest.fixture
def call(server: RunningServer) -> Call:
    return caller(server)
