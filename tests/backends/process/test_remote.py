"""The instance process's side of requests: what is said of one before it has come."""

from trivet.backends.api import Window
from trivet.backends.process.remote import OpenRequests


def is_open(window: Window) -> bool:
    told: list[bool] = []
    window.pass_on(told.append)
    return told == [True]


def test_a_window_that_was_opened_before_its_request_came_is_open() -> None:
    """Batches and news travel by different ways."""
    requests = OpenRequests()
    early, between, late = Window(1), Window(1), Window(1)
    requests.give_room(0, is_open=True)
    requests.register(0)
    requests.watch(0, early)
    requests.register(1)
    requests.give_room(1, is_open=True)
    requests.watch(1, between)
    requests.register(2)
    requests.watch(2, late)
    assert [is_open(each) for each in (early, between, late)] == [True, True, False]


def test_a_window_of_a_cancelled_request_is_open() -> None:
    requests, window = OpenRequests(), Window(1)
    requests.cancel(0)
    requests.register(0)
    requests.watch(0, window)
    assert is_open(window)
