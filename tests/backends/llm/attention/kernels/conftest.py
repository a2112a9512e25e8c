"""Kernels are tested in a process of their own: Triton decides when it is imported whether it
interprets. `test_triton_paged.py` in the folder above starts it; with a GPU, `-m gpu` compiles."""

import os
from typing import Any

import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

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


@pytest.fixture(autouse=True)
def rounds_8bit_numbers_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter loses the carry of a mantissa that is rounded up to a power of 2: 7.9 becomes
    4, not 8, as an 8-bit number."""
    convert = interpreter._convert_float

    def converted(values: Any, given: Any, wanted: Any, rounding: Any) -> Any:
        if (given, wanted) != (tl.float32, tl.float8e4nv):
            return convert(values, given, wanted, rounding)
        rounded = torch.tensor(values).to(torch.float8_e4m3fn)
        return rounded.view(torch.uint8).numpy()

    monkeypatch.setattr(interpreter, "_convert_float", converted)
