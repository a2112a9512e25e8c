"""Which batches run on the event loop: those of models that have shown to be fast."""

from trivet.server.scheduling.inline import FAST_NS, FIRST_TRIAL, SLOW_NS, InlinePolicy


def learned(size: int = 4, runs: int = FIRST_TRIAL) -> InlinePolicy:
    policy = InlinePolicy(enabled=True)
    for _ in range(runs):
        policy.observe(size, FAST_NS // 2)
    return policy


def test_nothing_runs_on_the_loop_before_its_trial() -> None:
    policy = learned(runs=FIRST_TRIAL - 1)
    assert not policy.allows(1)
    policy.observe(1, FAST_NS)
    assert policy.allows(4)


def test_larger_batches_than_tried_go_to_the_thread() -> None:
    policy = learned(size=4)
    assert policy.allows(3)
    assert not policy.allows(5)


def test_one_very_slow_run_sends_the_size_back_to_its_thread() -> None:
    policy = learned(size=8)
    policy.observe(8, SLOW_NS + 1)
    assert not policy.allows(8)
    assert policy.allows(4)


def test_one_run_a_little_too_slow_changes_nothing() -> None:
    policy = learned()
    policy.observe(4, 2 * FAST_NS)
    assert policy.allows(4)


def test_runs_that_are_slow_on_the_mean_send_it_back() -> None:
    policy = learned(size=1)
    for _ in range(20):
        policy.observe(1, 2 * FAST_NS)
    assert not policy.allows(1)


def test_each_relapse_doubles_the_trial() -> None:
    policy = learned(size=1)
    policy.observe(1, SLOW_NS + 1)
    for _ in range(2 * FIRST_TRIAL - 1):
        policy.observe(1, 1)
    assert not policy.allows(1)
    policy.observe(1, 1)
    assert policy.allows(1)


def test_a_slow_large_batch_does_not_condemn_the_small_ones() -> None:
    policy = learned(size=2)
    policy.observe(64, FAST_NS * 10)
    assert policy.allows(2)
    assert not policy.allows(64)


def test_models_that_may_wait_never_run_on_the_loop() -> None:
    policy = InlinePolicy(enabled=False)
    for _ in range(1000):
        policy.observe(1, 1)
    assert not policy.allows(1)
