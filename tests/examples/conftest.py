"""A client of each protocol for the server over the example repository."""

from collections.abc import Iterator
from contextlib import closing

import pytest
import tritonclient.grpc
import tritonclient.http
from example_site import TritonClient
from serving import RunningServer


@pytest.fixture(scope="session")
def site(example_server: RunningServer) -> RunningServer:
    return example_server


@pytest.fixture(scope="session", params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, site: RunningServer) -> Iterator[TritonClient]:
    module = tritonclient.http if request.param == "http" else tritonclient.grpc
    address = site.http if request.param == "http" else site.grpc
    with closing(module.InferenceServerClient(address)) as client:
        yield TritonClient(module, client)
