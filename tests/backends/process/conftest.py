"""Fixtures of the process isolation's tests."""

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
