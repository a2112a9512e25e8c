"""A collector and a repository to trace."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from trace_site import Collector, open_collector, write_models


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Listens on a free port."""
    with open_collector() as made:
        yield made


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps and an ensemble of them."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder
