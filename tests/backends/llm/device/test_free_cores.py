"""Torch's threads follow the cores that are free."""

from pathlib import Path

import pytest

from trivet.backends.llm.device.free_cores import FreeCores, Reading, fitting, read_cores


@pytest.mark.parametrize(
    ("threads", "waiting", "free", "wanted"),
    [
        (2, 0.0, 0.0, 2),
        (2, 0.5, 0.0, 1),
        (1, 0.9, 0.0, 1),
        (16, 8.2, 0.0, 8),
        (1, 0.0, 0.5, 1),
        (1, 0.1, 1.0, 2),
        (8, 0.0, 7.6, 15),
        (8, 0.0, 12.0, 16),
    ],
)
def test_threads_that_wait_are_given_up_and_free_cores_are_taken(
    threads: int, waiting: float, free: float, wanted: int
) -> None:
    most = max(threads, 16 if threads > 2 else 2)
    assert fitting(threads, most, waiting=waiting, free=free) == wanted


class _Kernel:
    """Counts what it is told to."""

    def __init__(self) -> None:
        self.reading: Reading | None = Reading(0.0, 0.0)
        self.used: list[int] = []
        self.cores = FreeCores(2, self.used.append, lambda: self.reading)

    def after(self, now_s: float, waited_s: float, idle_s: float) -> list[int]:
        self.reading = Reading(waited_s, idle_s)
        self.cores.look(now_s)
        return self.used


def test_a_neighbour_takes_a_thread_and_gives_it_back() -> None:
    kernel = _Kernel()
    assert kernel.after(10.0, 5.0, 7.0) == []
    assert kernel.after(11.0, 5.5, 7.0) == [1]
    assert kernel.after(12.0, 5.5, 7.1) == [1]
    assert kernel.after(13.0, 5.5, 8.1) == [1, 2]


def test_what_happened_while_nothing_was_computed_does_not_count() -> None:
    kernel = _Kernel()
    kernel.after(10.0, 0.0, 0.0)
    assert kernel.after(1000.0, 900.0, 0.0) == []


def test_between_two_looks_nothing_is_read() -> None:
    kernel = _Kernel()
    kernel.after(10.0, 0.0, 0.0)
    kernel.after(10.1, 99.0, 0.0)
    assert kernel.after(10.2, 99.0, 0.0) == []


def test_a_kernel_that_does_not_tell_changes_nothing(tmp_path: Path) -> None:
    assert read_cores(tmp_path / "none", tmp_path / "none") is None
    kernel = _Kernel()
    kernel.reading = None
    kernel.cores.look(10.0)
    kernel.cores.look(11.0)
    assert kernel.used == []


def test_this_kernel_counts_upwards() -> None:
    first, second = read_cores(), read_cores()
    assert first is not None
    assert second is not None
    assert second.waited_s >= first.waited_s >= 0
    assert second.idle_s >= first.idle_s > 0
