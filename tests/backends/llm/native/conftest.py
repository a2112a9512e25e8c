"""Models of the compiled step, for each kind of processor."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from native_models import NATIVE, Make, native_model

from trivet.backends.llm.native.library import Native


@pytest.fixture(params=["amx", "avx512"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a model for a kind of processor."""
    assert isinstance(NATIVE, Native)
    if request.param == "amx" and not NATIVE.has_amx:
        pytest.skip("this processor has no AMX")
    return partial(native_model, amx=request.param == "amx")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that meet many times a millisecond want a core each, which tests do not have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
