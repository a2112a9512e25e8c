"""Fixtures that all tests share, and who runs which test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sharing_out
from serving import RunningServer, start_server

sharing_out.share_cores()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    sharing_out.put_long_groups_first(items)


@pytest.hookimpl(optionalhook=True)  # known where pytest-xdist runs
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> sharing_out.GroupScheduling:
    config.option.loadscopereorder = False  # the order is ours
    return sharing_out.GroupScheduling(config, log)


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
