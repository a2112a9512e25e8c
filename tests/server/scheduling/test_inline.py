"""Which batches run on the event loop: those of models that have shown to be fast."""

from fakes import make_request, make_signature

from trivet.backends.api import Batch
from trivet.server.scheduling.inline import (
    FAST_NS,
    FIRST_TRIAL,
    SLOW_NS,
    Extent,
    InlinePolicy,
    in_bytes,
    measure_of,
)


def learned(size: int = 4, runs: int = FIRST_TRIAL) -> InlinePolicy:
    policy = InlinePolicy(enabled=True)
    for _ in range(runs):
        policy.observe(Extent(size), FAST_NS // 2)
    return policy


def test_nothing_runs_on_the_loop_before_its_trial() -> None:
    policy = learned(runs=FIRST_TRIAL - 1)
    assert not policy.allows(Extent(1))
    policy.observe(Extent(1), FAST_NS)
    assert policy.allows(Extent(4))


def test_larger_batches_than_tried_go_to_the_thread() -> None:
    policy = learned(size=4)
    assert policy.allows(Extent(3))
    assert not policy.allows(Extent(5))


def test_one_very_slow_run_sends_the_size_back_to_its_thread() -> None:
    policy = learned(size=8)
    policy.observe(Extent(8), SLOW_NS + 1)
    assert not policy.allows(Extent(8))
    assert policy.allows(Extent(4))


def test_one_run_a_little_too_slow_changes_nothing() -> None:
    policy = learned()
    policy.observe(Extent(4), 2 * FAST_NS)
    assert policy.allows(Extent(4))


def test_runs_that_are_slow_on_the_mean_send_it_back() -> None:
    policy = learned(size=1)
    for _ in range(20):
        policy.observe(Extent(1), 2 * FAST_NS)
    assert not policy.allows(Extent(1))


def test_each_relapse_doubles_the_trial() -> None:
    policy = learned(size=1)
    policy.observe(Extent(1), SLOW_NS + 1)
    for _ in range(2 * FIRST_TRIAL - 1):
        policy.observe(Extent(1), 1)
    assert not policy.allows(Extent(1))
    policy.observe(Extent(1), 1)
    assert policy.allows(Extent(1))


def test_a_slow_large_batch_does_not_condemn_the_small_ones() -> None:
    policy = learned(size=2)
    policy.observe(Extent(64), FAST_NS * 10)
    assert policy.allows(Extent(2))
    assert not policy.allows(Extent(64))


def test_models_that_may_wait_never_run_on_the_loop() -> None:
    policy = InlinePolicy(enabled=False)
    for _ in range(1000):
        policy.observe(Extent(1), 1)
    assert not policy.allows(Extent(1))


def test_many_small_requests_do_not_speak_for_a_large_one() -> None:
    policy = InlinePolicy(enabled=True)
    for _ in range(FIRST_TRIAL):
        policy.observe(Extent(8 * 64, 64), FAST_NS // 2)
    assert policy.allows(Extent(4 * 64, 64))
    assert not policy.allows(Extent(4 * 64, 4 * 64))


def test_a_lone_request_stays_on_the_loop_when_a_batch_of_its_like_was_slow() -> None:
    policy = InlinePolicy(enabled=True)
    for _ in range(FIRST_TRIAL):
        policy.observe(Extent(8 * 64, 64), FAST_NS // 2)
    policy.observe(Extent(8 * 64, 64), SLOW_NS + 1)
    assert not policy.allows(Extent(8 * 64, 64))
    assert policy.allows(Extent(64, 64))


def test_batches_of_models_of_any_shape_are_measured_in_bytes() -> None:
    requests = [make_request("short", width=3), make_request("long", width=5)]
    extent = in_bytes(Batch(requests, batching=True))
    assert (extent.total, extent.largest) == (8 * 4, 5 * 4)
    signature = make_signature()
    assert measure_of(signature, Batch, has_fixed_shapes=False) is in_bytes


def test_nothing_tells_what_a_batch_of_its_own_kind_costs() -> None:
    class Other(Batch):
        pass

    assert measure_of(make_signature(), Other, has_fixed_shapes=True) is None
    assert measure_of(make_signature(decoupled=True), Batch, has_fixed_shapes=True) is None
