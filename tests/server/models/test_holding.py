"""Who is held up by a reader goes on when that reader waits for the same model."""

import pytest
from fakes import CountingSink, make_request

from trivet.backends.api import InferRequest, InferResponse, InvalidRequest, Window, derive
from trivet.server.models.holding import Holding

READER, OTHER = frozenset({"reader"}), frozenset({"other"})


def asked(
    waiting: frozenset[str], window: Window | None = None, parent: InferRequest | None = None
) -> InferRequest:
    """By a reader of that name, to model 'm'."""
    request = make_request() if parent is None else derive(parent, "m", None, parent.inputs)
    request.waiting |= waiting
    request.window = window
    return request


def is_open(window: Window) -> bool:
    """Whether more go through than have room."""
    told: list[bool] = []
    window.pass_on(told.append)
    return told == [True]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_window_is_open_while_its_reader_waits_for_the_same_model(*, is_first: bool) -> None:
    holding, window = Holding(), Window(1, READER)
    requests = [asked(READER, window), asked(READER)]
    for request in requests if is_first else reversed(requests):
        holding.enter(request, CountingSink())
    assert is_open(window)


def test_of_two_streams_of_one_reader_neither_waits() -> None:
    holding, windows = Holding(), [Window(1, READER), Window(1, READER)]
    for window in windows:
        holding.enter(asked(READER, window), CountingSink())
    assert [is_open(window) for window in windows] == [True, True]


def test_readers_do_not_mind_each_other() -> None:
    holding, windows = Holding(), [Window(1, READER), Window(1, OTHER)]
    for window, reader in zip(windows, (READER, OTHER), strict=True):
        holding.enter(asked(reader, window), CountingSink())
    assert [is_open(window) for window in windows] == [False, False]


def test_other_models_hold_nobody_up() -> None:
    holding, window = Holding(), Window(1, READER)
    holding.enter(asked(READER, window), CountingSink())
    elsewhere = asked(READER)
    elsewhere.model_name = "n"
    holding.enter(elsewhere, CountingSink())
    assert not is_open(window)


def test_who_is_held_up_further_on_goes_on_as_well() -> None:
    """The stream's own model asks 'm'."""
    holding, window = Holding(), Window(1, READER)
    holding.enter(asked(OTHER, parent=asked(READER, window)), CountingSink())
    holding.enter(asked(READER), CountingSink())
    assert is_open(window)


def test_what_makes_the_stream_is_waited_for_by_reading_it() -> None:
    holding, window = Holding(), Window(1, READER)
    stream = asked(READER, window)
    for _ in range(2):
        holding.enter(asked(OTHER, parent=stream), CountingSink())
    assert not is_open(window)


@pytest.mark.parametrize("end", ["send", "finish", "fail"])
def test_what_has_its_end_holds_nobody_up_and_is_held_up_by_nobody(end: str) -> None:
    holding, window, sink = Holding(), Window(1, READER), CountingSink()
    response = InferResponse("m", 1, "", [])
    first = holding.enter(asked(READER), sink)
    if end == "fail":
        first.fail(InvalidRequest("broken"))
    elif end == "finish":
        first.finish()
    else:
        first.send(response, final=False)
        first.send(response, final=True)
    assert sink.ends == 1
    holding.enter(asked(READER, window), CountingSink())
    assert not is_open(window)
