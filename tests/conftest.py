"""Fixtures that all tests share, and who runs which test."""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import heard
import pytest
import sharing_out
from limits import let_examples_take_their_time, scale_limit
from serving import RunningServer, start_server, write_identity

sharing_out.share_cores()
let_examples_take_their_time()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    sharing_out.put_long_groups_first(items)


@pytest.hookimpl(optionalhook=True)  # known where pytest-xdist runs
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> sharing_out.GroupScheduling:
    config.option.loadscopereorder = False  # the order is ours
    return sharing_out.GroupScheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    scale_limit(item)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test of bad input passes if docs/bad-input.md says what the servers answered."""
    heard.HEARD.clear()
    result = yield
    if rows := [row for mark in item.iter_markers("rows") for row in mark.args]:
        from bad_input import differences  # loads libraries, which first get their cores

        if found := differences(rows, heard.HEARD):
            pytest.fail("\n".join(found), pytrace=False)
    return result


@pytest.fixture(scope="session", autouse=True)
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Servers of tests keep environments of models there, and not in the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("environments")
        patch.setenv("TRIVET_ENVIRONMENT_CACHE", str(folder))
        yield


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., RunningServer]]:
    """Starts servers and stops them at the end of the module."""
    servers: list[RunningServer] = []

    def start(repository: Path | str, *flags: str, wait: bool = True) -> RunningServer:
        servers.append(start_server(repository, *flags, wait=wait))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@pytest.fixture(scope="session")
def example_server() -> Iterator[RunningServer]:
    """What `make serve` serves, for all tests that need no server of their own."""
    from example_site import open_examples  # loads libraries, which first get their cores

    with open_examples() as server:
        yield server


@pytest.fixture(scope="session")
def language_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A small language model and an identity model, for all tests that need no server of their
    own."""
    from llm_site import SMALL_LLM, write_small_llm

    repository = tmp_path_factory.mktemp("models")
    write_small_llm(repository, "small", SMALL_LLM)
    write_identity(repository, "identity")
    server = start_server(repository)
    yield server
    server.end()


@pytest.fixture(scope="session")
def real_language_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """SmolLM2, for tests of what it says."""
    from llm_site import REAL_LLM, write_llm

    repository = tmp_path_factory.mktemp("real")
    write_llm(repository, "smollm2", REAL_LLM)
    server = start_server(repository)
    yield server
    server.end()
