"""Fixtures of the PyTorch tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch_models import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "m")


@pytest.fixture(autouse=True)
def _keep_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
