"""Kernels are tested in a process of their own: Triton decides when it is imported whether it
interprets. `test_triton_paged.py` in the folder above starts it; with a GPU, `-m gpu` compiles."""

import os

import pytest
import torch

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = [] if IS_INTERPRETED or torch.cuda.is_available() else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the interpreter these are tests of a GPU."""
    for item in items:
        if not IS_INTERPRETED and item.path.is_relative_to(os.path.dirname(__file__)):  # noqa: PTH120
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the kernels run."""
    return torch.device("cpu" if IS_INTERPRETED else "cuda")
