"""What evidence there is, and what is none."""

from trivet.server.rollouts.evidence import Counted, Evidence


def test_no_event_is_no_evidence() -> None:
    evidence = Evidence(100.0)
    evidence.compare(Counted(100), Counted(900))

    assert evidence.chance == 1.0


def test_events_of_a_version_that_gets_nothing_are_none() -> None:
    evidence = Evidence(100.0)
    evidence.compare(Counted(), Counted(900, 900))

    assert evidence.chance == 1.0


def test_what_a_tolerance_allows_is_none() -> None:
    strict, tolerant = Evidence(100.0), Evidence(100.0)
    for _ in range(200):
        strict.compare(Counted(100, 4), Counted(100, 2))
        tolerant.compare(Counted(100, 4), Counted(100, 2), 1.0)

    assert strict.chance < 1e-6
    assert tolerant.chance == 1.0


def test_what_goes_bad_after_a_long_time_is_found_in_a_few_events() -> None:
    evidence = Evidence(1500.0)
    for _ in range(1000):
        evidence.passed(1.0)
        evidence.compare(Counted(50, 0), Counted(150, 1))
    assert evidence.chance == 1.0

    for _ in range(15):
        evidence.compare(Counted(1, 1), Counted(3, 0))
    assert evidence.chance < 0.001


def test_it_goes_on_from_its_state() -> None:
    first = Evidence(100.0)
    first.passed(25.0)
    first.compare(Counted(10, 3), Counted(90, 2))
    second = Evidence(100.0, first.state)

    assert second.chance == first.chance
    assert second.state == first.state
