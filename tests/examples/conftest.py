"""One server over the example repository, and a client of each protocol."""

from collections.abc import Iterator
from contextlib import closing

import pytest
import tritonclient.grpc
import tritonclient.http
from example_site import TritonClient, open_examples
from serving import RunningServer


@pytest.fixture(scope="session")
def site() -> Iterator[RunningServer]:
    """The server that all example tests share."""
    with open_examples() as server:
        yield server


@pytest.fixture(scope="session", params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, site: RunningServer) -> Iterator[TritonClient]:
    module = tritonclient.http if request.param == "http" else tritonclient.grpc
    address = site.http if request.param == "http" else site.grpc
    with closing(module.InferenceServerClient(address)) as client:
        yield TritonClient(module, client)
