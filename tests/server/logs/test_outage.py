"""What fails for a while is told at its beginning and once a minute; its end is told once."""

from auth_site import Clock

from trivet.server.logs.outage import PERIOD_S, Outage


def test_a_failure_is_told_at_once_and_then_once_a_minute() -> None:
    clock = Clock()
    outage = Outage(clock)
    told = []
    for _ in range(150):
        told.append(outage.goes_on())
        clock.now_s += 1
    assert [second for second, is_told in enumerate(told) if is_told] == [0, 60, 120]
    assert PERIOD_S == 60


def test_its_end_is_told_once_and_only_if_it_was() -> None:
    outage = Outage(Clock())
    assert not outage.ends()
    outage.goes_on()
    assert outage.ends()
    assert not outage.ends()


def test_what_fails_and_works_by_turns_is_told_no_more_often() -> None:
    clock = Clock()
    outage = Outage(clock)
    told = []
    for _ in range(30):
        told.append((outage.goes_on(), outage.ends()))
        clock.now_s += 4
    assert [turn for turn, (begins, _) in enumerate(told) if begins] == [0, 15]
    assert [turn for turn, (_, ends) in enumerate(told) if ends] == [0, 15]
