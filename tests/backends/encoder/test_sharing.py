"""What instances share is opened once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from patience import patience

from trivet.backends.encoder.sharing import Shared


class Thing:
    """Opened."""


def test_whoever_wants_what_is_being_opened_waits_for_it_and_others_go_on() -> None:
    shared: Shared[Thing] = Shared()
    may_end, has_begun = threading.Event(), threading.Event()
    opened = []

    def slowly() -> Thing:
        has_begun.set()
        assert may_end.wait(patience())
        opened.append(Thing())
        return opened[-1]

    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(shared.get, ("one",), slowly) for _ in range(2)]
        assert has_begun.wait(patience())
        other = shared.get(("other",), Thing)
        may_end.set()
        assert both[0].result(patience()) is both[1].result(patience()) is opened[0]
    assert len(opened) == 1
    assert shared.get(("other",), slowly) is other


def test_what_cannot_be_opened_is_tried_again_and_what_nobody_has_is_opened_anew() -> None:
    shared: Shared[Thing] = Shared()

    def broken() -> Thing:
        raise OSError("it is broken")

    with pytest.raises(OSError, match="it is broken"):
        shared.get((), broken)
    first = id(thing := shared.get((), Thing))
    assert id(shared.get((), broken)) == first
    del thing
    with pytest.raises(OSError, match="it is broken"):
        shared.get((), broken)
