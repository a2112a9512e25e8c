"""The instance process's side of requests and metrics: what is said before a request has come, and
who must not wait for an answer."""

import threading
from typing import cast

import pytest

from trivet.backends.api import Unavailable, Window
from trivet.backends.api.meters import Meter, MeterKind
from trivet.backends.process.link import Link
from trivet.backends.process.metering import RemoteMeters, answer_meter
from trivet.backends.process.remote import OpenRequests
from trivet.server.metrics.custom import CustomMetrics


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


def test_the_thread_that_hears_answers_does_not_wait_for_one() -> None:
    """A model's is_ready runs there."""
    meters = RemoteMeters(cast(Link, None))
    meters.listener = threading.get_ident()
    with pytest.raises(Unavailable, match="is_ready may change metrics"):
        meters.value(Meter("m", "", MeterKind.GAUGE, ()))


@pytest.mark.parametrize(
    "meter", [["m"], ["m", "", "sum", None, []], ["m", "", "gauge", [1], []], None]
)
def test_a_metric_that_does_not_add_up_is_an_error(meter: object) -> None:
    meters = CustomMetrics().owned()
    header = {"op": "meter", "what": "open", "meter": meter, "token": 3}
    answer = answer_meter(header, meters)
    assert answer is not None
    assert (answer["token"], answer["error"]) == (3, "InvalidRequest")
    assert answer_meter({**header, "token": None}, meters) is None
