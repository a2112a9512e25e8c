"""When an instance waits for the clients it has just answered, and when it gives that up."""

from trivet.server.scheduling.rebound import FIRST_PAUSE, SHARE, Rebound

MS = 1_000_000
WINDOW_NS = int(40 * MS * SHARE)


def after_batch(rebound: Rebound, count: int, num_queued: int = 0, now_ns: int = 1) -> Rebound:
    rebound.finished(count, num_queued, compute_ns=40 * MS, now_ns=now_ns)
    return rebound


def test_an_instance_waits_for_those_it_has_answered() -> None:
    rebound = after_batch(Rebound(16), 15, num_queued=1)
    assert rebound.wait_until_ns(1, now_ns=2) == 1 + WINDOW_NS
    assert rebound.wait_until_ns(15, now_ns=3) == 1 + WINDOW_NS
    assert rebound.wait_until_ns(16, now_ns=4) == 0


def test_a_lone_client_is_never_held() -> None:
    assert after_batch(Rebound(16), 1).wait_until_ns(1, now_ns=2) == 0


def test_a_full_batch_in_the_queue_goes_at_once() -> None:
    assert after_batch(Rebound(16), 16, num_queued=16).wait_until_ns(16, now_ns=2) == 0


def test_short_batches_are_not_worth_a_wait() -> None:
    rebound = Rebound(16)
    rebound.finished(15, 1, compute_ns=2 * MS, now_ns=1)
    assert rebound.wait_until_ns(1, now_ns=2) == 0


def test_the_wait_ends_and_is_then_given_up_for_a_while() -> None:
    rebound = after_batch(Rebound(16), 8)
    assert rebound.wait_until_ns(1, now_ns=1 + WINDOW_NS) == 0
    for _ in range(FIRST_PAUSE):
        assert after_batch(rebound, 8).wait_until_ns(1, now_ns=2) == 0
    assert after_batch(rebound, 8).wait_until_ns(1, now_ns=2) > 0


def test_each_wait_in_vain_doubles_the_pause_and_a_full_one_ends_that() -> None:
    rebound = after_batch(Rebound(16), 8)
    rebound.wait_until_ns(1, now_ns=1 + WINDOW_NS)
    for _ in range(FIRST_PAUSE):
        after_batch(rebound, 8)
    after_batch(rebound, 8).wait_until_ns(1, now_ns=1 + WINDOW_NS)
    for _ in range(2 * FIRST_PAUSE):
        assert after_batch(rebound, 8).wait_until_ns(1, now_ns=2) == 0
    assert after_batch(rebound, 8).wait_until_ns(8, now_ns=2) == 0
    after_batch(rebound, 8).wait_until_ns(1, now_ns=1 + WINDOW_NS)
    for _ in range(FIRST_PAUSE):
        after_batch(rebound, 8)
    assert after_batch(rebound, 8).wait_until_ns(1, now_ns=2) > 0


def test_models_that_do_not_batch_never_wait() -> None:
    assert after_batch(Rebound(0), 15).wait_until_ns(1, now_ns=2) == 0
