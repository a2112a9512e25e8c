"""The thread behind a repository elsewhere: what it says, and that it goes on."""

import logging
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event

import pytest
from patience import patience
from scripted_source import refused, throttled

from trivet.server.remote import follower as module
from trivet.server.remote.cache import Stopped
from trivet.server.remote.follower import Followed, Follower
from trivet.server.remote.source import RemoteError, Unreachable

WARNING = "test://place/models may not be read: scripted; what serves goes on serving"


class ScriptedMirror:
    """Does in each round what it was told: an error, or whether something is being written."""

    def __init__(self, *rounds: Exception | bool, remembers: bool = False) -> None:
        self._rounds = list(rounds)
        self._remembers = remembers
        self.settle_s: list[float] = []
        self.restored = 0

    def sync(self, *, settle_s: float, bar: bool = False) -> bool:
        self.settle_s.append(settle_s)
        result = self._rounds.pop(0) if self._rounds else False
        if isinstance(result, Exception):
            raise result
        return result

    def restore(self) -> bool:
        self.restored += 1
        return self._remembers


class HeldMirror:
    """Each round takes as long as the test wants."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = Event(), Event()
        self.num_rounds = 0

    def sync(self, *, settle_s: float, bar: bool = False) -> bool:
        self.num_rounds += 1
        self.has_begun.set()
        return not self.may_end.wait(patience())

    def restore(self) -> bool:
        return False


@pytest.fixture
def stop() -> Iterator[Event]:
    stop = Event()
    yield stop
    stop.set()


def follower_of(mirror: Followed, stop: Event) -> Follower:
    return Follower(mirror, "test://place/models", stop)


def polled(mirror: ScriptedMirror, stop: Event, num_rounds: int) -> None:
    """Lets it poll so often."""
    notices: SimpleQueue[bool] = SimpleQueue()
    follower = follower_of(mirror, stop)
    follower.follow(0.001, lambda: notices.put(True))
    for _ in range(num_rounds):
        notices.get(timeout=patience())
    stop.set()
    assert follower.close(patience())


def test_a_source_that_vanishes_is_told_once_and_so_is_its_return(
    stop: Event, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        polled(ScriptedMirror(refused(), refused(), refused(), False, False), stop, 5)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [WARNING, "test://place/models can be read again"]


def test_an_outage_in_other_words_is_the_same_outage(
    stop: Event, caplog: pytest.LogCaptureFixture
) -> None:
    outage = [refused(), throttled()] * 3
    with caplog.at_level(logging.INFO):
        polled(ScriptedMirror(*outage, False, throttled(), False), stop, 9)
    messages = [record.getMessage() for record in caplog.records]
    back = "test://place/models can be read again"
    assert messages == [
        WARNING,
        back,
        f"{throttled()}; what serves goes on serving",
        back,
    ]


def test_a_fault_of_ours_is_not_the_last_round(
    stop: Event, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = ScriptedMirror(ZeroDivisionError("ours"))
    polled(mirror, stop, 3)
    assert "a round failed unexpectedly" in caplog.text
    assert len(mirror.settle_s) >= 3


def test_what_nobody_waits_for_has_to_be_still(stop: Event) -> None:
    mirror = ScriptedMirror()
    polled(mirror, stop, 1)
    asked = ScriptedMirror()
    other = Event()
    follower_of(asked, other).sync().result(patience())
    other.set()
    assert mirror.settle_s[0] > 0
    assert asked.settle_s == [0.0]


def test_whoever_asks_gets_the_error(stop: Event) -> None:
    follower = follower_of(ScriptedMirror(refused()), stop)
    with pytest.raises(RemoteError, match="may not be read"):
        follower.sync().result(patience())
    follower.sync().result(patience())


def test_a_start_waits_for_models_that_are_being_written(
    stop: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_PAUSE_S", 0.0)
    mirror = ScriptedMirror(True, True, False)
    follower_of(mirror, stop).start(bar=False).result(patience())
    assert len(mirror.settle_s) == 3


def test_a_start_without_the_source_takes_what_was_there(
    stop: Event, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = ScriptedMirror(throttled(), remembers=True)
    follower_of(mirror, stop).start(bar=False).result(patience())
    assert mirror.restored == 1
    assert "serving what was there last time" in caplog.text


def test_a_start_without_the_source_and_without_memory_fails(stop: Event) -> None:
    follower = follower_of(ScriptedMirror(throttled()), stop)
    with pytest.raises(Unreachable):
        follower.start(bar=False).result(patience())


def test_what_ended_the_first_round_is_told_by_who_waited_for_it_and_by_no_look(
    stop: Event, caplog: pytest.LogCaptureFixture
) -> None:
    notices: SimpleQueue[bool] = SimpleQueue()
    with caplog.at_level(logging.INFO):
        follower = follower_of(ScriptedMirror(refused(), refused(), False), stop)
        with pytest.raises(RemoteError):
            follower.start(bar=False).result(patience())
        follower.follow(0.001, lambda: notices.put(True))
        for _ in range(2):
            notices.get(timeout=patience())
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["test://place/models can be read again"]


def test_a_source_that_refuses_us_gives_nothing_from_memory(stop: Event) -> None:
    mirror = ScriptedMirror(refused(), remembers=True)
    with pytest.raises(RemoteError):
        follower_of(mirror, stop).start(bar=False).result(patience())
    assert mirror.restored == 0


def test_whoever_asks_after_the_end_is_turned_away(stop: Event) -> None:
    mirror = ScriptedMirror()
    follower = follower_of(mirror, stop)
    stop.set()
    with pytest.raises(Stopped):
        follower.sync().result(patience())
    assert follower.close(patience())
    with pytest.raises(Stopped):
        follower.sync().result(patience())
    assert mirror.settle_s == []


def test_whoever_leaves_ends_nothing(stop: Event) -> None:
    mirror = HeldMirror()
    follower = follower_of(mirror, stop)
    under_way = follower.sync()
    assert mirror.has_begun.wait(patience())
    assert not under_way.cancel()
    assert follower.sync().cancel()
    mirror.may_end.set()
    follower.sync().result(patience())
    assert mirror.num_rounds == 2


def test_one_round_answers_all_who_wait_when_it_begins(stop: Event) -> None:
    mirror = HeldMirror()
    follower = follower_of(mirror, stop)
    first = follower.sync()
    assert mirror.has_begun.wait(patience())
    others = [follower.sync() for _ in range(10)]
    mirror.may_end.set()
    for each in (first, *others):
        each.result(patience())
    assert mirror.num_rounds == 2
