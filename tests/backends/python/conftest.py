"""Fixtures of the Python backend's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from python_models import Maker


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[Maker]:
    """Writes and opens models, and closes them after the test."""
    maker = Maker(tmp_path)
    yield maker
    maker.close()


@pytest.fixture(params=["process", "none"])
def isolation(request: pytest.FixtureRequest) -> str:
    """Both places where a model can run."""
    return str(request.param)
