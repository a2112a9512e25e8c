"""How many threads PyTorch computes with, whichever backends of a process ask."""

from collections.abc import Iterator

import pytest
import torch

from trivet.backends.torch_threads import TorchThreads


@pytest.fixture(autouse=True)
def _keep_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_first_model_sets_them_and_others_leave_them() -> None:
    threads = TorchThreads()

    threads.use(3)
    threads.use(1)

    assert torch.get_num_threads() == 3


def test_a_number_that_a_config_names_counts_whoever_came_before() -> None:
    threads = TorchThreads()
    threads.use(1)

    threads.use(1, asked=2)
    threads.use(1)

    assert torch.get_num_threads() == 2
