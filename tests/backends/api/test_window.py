"""Windows: who sends more than are taken waits, and where it must, not for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from patience import patience

from trivet.backends.api import Window
from trivet.backends.api import window as windows

SIZE = 4


def taking(window: Window, count: int) -> None:
    for _ in range(count):
        window.take()


def test_as_many_are_on_their_way_as_there_is_room_for() -> None:
    window = Window(SIZE)
    taking(window, SIZE)
    with ThreadPoolExecutor(1) as pool:
        more = pool.submit(taking, window, 2)
        threading.Event().wait(0.05)
        assert not more.done()
        window.give()
        threading.Event().wait(0.05)
        assert not more.done()
        window.give(5)  # more than it was
        more.result(patience())
        more = pool.submit(taking, window, SIZE + 1)
        threading.Event().wait(0.05)
        assert not more.done()
        window.open()
        more.result(patience())


@pytest.mark.parametrize(
    ("is_soft", "constant"), [(True, "SOFT_PATIENCE_S"), (False, "PATIENCE_S")]
)
def test_more_goes_through_after_waiting_in_vain_until_room_is_given_again(
    monkeypatch: pytest.MonkeyPatch, constant: str, *, is_soft: bool
) -> None:
    monkeypatch.setattr(windows, constant, 0.001)
    window = Window(SIZE, is_soft=is_soft)
    taking(window, 100)
    monkeypatch.setattr(windows, constant, 3600.0)
    window.give(100 - SIZE)
    with ThreadPoolExecutor(1) as pool:
        more = pool.submit(window.take)
        threading.Event().wait(0.05)
        assert not more.done()
        window.give()
        more.result(patience())
