"""How many threads PyTorch computes with, whichever backends of a process ask."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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


def test_a_thread_may_have_a_number_of_its_own_and_others_keep_theirs() -> None:
    threads = TorchThreads()
    threads.use(3)

    def with_its_own() -> int:
        threads.have(1)
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(with_its_own).result() == 1
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3
