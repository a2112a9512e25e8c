"""What prompts begin with is forgotten when it is to be, and nothing else."""

from typing import Any

import pytest
from paged_model import add_all, expected_output, make_scheduler, run_step, run_until_done

from trivet.backends.llm.scheduling.sequence import Sequence

PROMPT = list(range(64))
OUTPUT = expected_output(PROMPT, 4)


def sequence(name: str, **options: Any) -> Sequence:
    return Sequence(name, list(PROMPT), 4, **options)


def cached(scheduler: Any, model: Any, name: str) -> int:
    """Tokens of the prompt that were found."""
    asked = sequence(name)
    add_all(scheduler, [asked])
    run_until_done(scheduler, model)
    assert asked.output_ids == OUTPUT
    return asked.num_cached


def test_what_was_cached_is_computed_anew() -> None:
    scheduler, pool, model = make_scheduler()
    assert cached(scheduler, model, "a") == 0
    assert cached(scheduler, model, "b") > 0
    scheduler.reset_prefix_cache(is_anew=False)
    assert pool.stats().cached == 0
    assert pool.stats().free == pool.stats().total
    assert cached(scheduler, model, "c") == 0
    assert cached(scheduler, model, "d") > 0


@pytest.mark.parametrize("is_anew", [False, True])
def test_what_runs_goes_on_and_leaves_nothing_from_before(is_anew: bool) -> None:
    scheduler, pool, model = make_scheduler()
    running = sequence("running")
    add_all(scheduler, [running])
    run_step(scheduler, model)
    run_step(scheduler, model)
    scheduler.reset_prefix_cache(is_anew=is_anew)
    late = sequence("late")
    add_all(scheduler, [late])
    run_until_done(scheduler, model)
    assert running.output_ids == late.output_ids == OUTPUT
    assert running.num_preemptions == is_anew
    # Computed anew, both may share what is new.
    assert late.num_cached == 0 or is_anew
    assert pool.stats().used == 0


def test_a_sequence_that_waits_shares_what_is_computed_afterwards() -> None:
    scheduler, _, model = make_scheduler(max_num_seqs=1)
    first, waiting = sequence("first"), sequence("waiting")
    add_all(scheduler, [first, waiting])
    run_step(scheduler, model)
    scheduler.reset_prefix_cache(is_anew=True)
    run_until_done(scheduler, model)
    assert waiting.num_cached > 0
    assert waiting.output_ids == OUTPUT
