"""What is known of how processes end."""

from pathlib import Path

import pytest

from trivet.backends.process import ending
from trivet.backends.process.ending import MemoryKills


class Kernel:
    """Its page of numbers, and a clock."""

    def __init__(self) -> None:
        self.num_kills = 3
        self.num_reads = 0
        self.now_s = 100.0

    def read_text(self) -> str:
        self.num_reads += 1
        return f"nr_free_pages 17\noom_kill {self.num_kills}\n"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(ending, "_VMSTAT", kernel)
    return kernel


def test_memory_kills_are_looked_for_now_and_then(kernel: Kernel) -> None:
    kills = MemoryKills(lambda: kernel.now_s)
    for _ in range(1000):
        kills.look()
        kernel.now_s += 0.001
    assert 2 <= kernel.num_reads <= 6


def test_a_memory_kill_is_fresh_for_some_seconds(kernel: Kernel) -> None:
    kills = MemoryKills(lambda: kernel.now_s)
    assert not kills.are_fresh()
    kernel.num_kills += 1
    assert kills.are_fresh()
    kernel.now_s += 4
    assert kills.are_fresh()
    kernel.now_s += 4
    assert not kills.are_fresh()


def test_without_the_kernels_numbers_nothing_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_VMSTAT", Path("/nowhere"))
    assert not MemoryKills().are_fresh()
