"""Clients of environments of their own over the small language model that all tests share."""

from collections.abc import Callable

import pytest
from client_environments import ClientEnvironment, client_environment
from serving import RunningServer


@pytest.fixture(scope="session")
def server(language_server: RunningServer) -> RunningServer:
    return language_server


@pytest.fixture(scope="module")
def environment_of(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], ClientEnvironment]:
    """Makes the environment of a client."""
    return lambda name: client_environment(tmp_path_factory.mktemp("clients"), name)
