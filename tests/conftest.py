"""Fixtures that all tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import RunningServer, start_server


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., RunningServer]]:
    """Starts servers and stops them at the end of the module."""
    servers: list[RunningServer] = []

    def start(repository: Path, *flags: str, wait: bool = True) -> RunningServer:
        servers.append(start_server(repository, *flags, wait=wait))
        return servers[-1]

    yield start
    for server in servers:
        server.end()
