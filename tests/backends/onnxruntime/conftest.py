"""Fixtures of the ONNX Runtime tests."""

from pathlib import Path

import pytest
from onnx_models import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "m")
