"""Who computes what in a step: budget, order, admission, preemption, prefix hits, refusals."""

from typing import Any

import pytest
from paged_model import add_all, expected_output, make_scheduler, run_step, run_until_done

from trivet.backends.api.errors import InvalidConfig, InvalidRequest, Unavailable
from trivet.backends.llm.scheduling.plan import StepPlan
from trivet.backends.llm.scheduling.sequence import Sequence, SequenceStatus


def make_sequence(
    name: str, num_prompt: int, max_new_tokens: int = 4, *, first_token: int = 0, **options: Any
) -> Sequence:
    prompt = list(range(first_token, first_token + num_prompt))
    return Sequence(name, prompt, max_new_tokens, **options)


def shape_of(plan: StepPlan) -> list[tuple[str, int, int, bool]]:
    return [(row.sequence.id, row.start, row.count, row.samples) for row in plan.rows]


def test_a_prompt_within_the_budget_is_computed_at_once_and_samples() -> None:
    scheduler, _, model = make_scheduler()
    scheduler.add(make_sequence("a", 5))
    assert shape_of(run_step(scheduler, model)) == [("a", 0, 5, True)]
    assert shape_of(run_step(scheduler, model)) == [("a", 5, 1, True)]


def test_a_long_prompt_is_cut_into_chunks_and_samples_with_the_last() -> None:
    scheduler, _, model = make_scheduler(max_batched_tokens=16)
    scheduler.add(make_sequence("a", 40))
    plans = [run_step(scheduler, model) for _ in range(4)]
    assert [shape_of(plan)[0] for plan in plans] == [
        ("a", 0, 16, False),
        ("a", 16, 16, False),
        ("a", 32, 8, True),
        ("a", 40, 1, True),
    ]


def test_running_sequences_decode_in_every_step_while_a_long_prompt_is_computed() -> None:
    scheduler, _, model = make_scheduler(max_batched_tokens=8)
    scheduler.add(make_sequence("short", 2, 10))
    run_step(scheduler, model)
    scheduler.add(make_sequence("long", 30, first_token=100))
    plans = [run_step(scheduler, model) for _ in range(4)]
    assert [shape_of(plan)[0][:3] for plan in plans] == [
        ("short", start, 1) for start in range(2, 6)
    ]
    assert [plan.num_tokens for plan in plans] == [8, 8, 8, 8]


def test_a_short_request_that_comes_later_ends_earlier() -> None:
    scheduler, _, model = make_scheduler()
    early, late = make_sequence("early", 5, 20), make_sequence("late", 5, 2)
    scheduler.add(early)
    run_step(scheduler, model)
    scheduler.add(late)
    run_step(scheduler, model)
    run_step(scheduler, model)
    assert late.status is SequenceStatus.FINISHED
    assert early.status is SequenceStatus.RUNNING


def test_no_more_than_max_num_seqs_run() -> None:
    scheduler, _, model = make_scheduler(max_num_seqs=2)
    add_all(scheduler, [make_sequence(name, 3) for name in "abc"])
    assert [row[0] for row in shape_of(run_step(scheduler, model))] == ["a", "b"]
    assert scheduler.stats().num_waiting == 1


def test_lower_priority_values_are_admitted_first_and_equal_ones_in_order_of_arrival() -> None:
    scheduler, _, model = make_scheduler(max_num_seqs=3)
    priorities = [("a", 1), ("b", 0), ("c", 1), ("d", 0)]
    add_all(scheduler, [make_sequence(name, 3, priority=value) for name, value in priorities])
    assert [row[0] for row in shape_of(run_step(scheduler, model))] == ["b", "d", "a"]


def test_a_prompt_waits_until_all_its_blocks_can_be_reserved() -> None:
    scheduler, pool, model = make_scheduler(num_blocks=6, max_batched_tokens=4)
    holder = make_sequence("holder", 8, 4)
    scheduler.add(holder)
    scheduler.add(make_sequence("big", 17, first_token=100))
    scheduler.add(make_sequence("small", 1, first_token=200))
    run_step(scheduler, model)
    run_step(scheduler, model)
    run_step(scheduler, model)
    assert scheduler.stats().num_waiting == 2  # the small one does not overtake
    run_until_done(scheduler, model)
    assert pool.stats().used == 0


def test_the_watermark_keeps_blocks_from_prompts_while_something_runs() -> None:
    scheduler, pool, model = make_scheduler(num_blocks=11, watermark=0.3)
    scheduler.add(make_sequence("a", 4 * 4, 2))
    scheduler.add(make_sequence("b", 4 * 4, first_token=100))
    run_step(scheduler, model)
    assert scheduler.stats().num_running == 1
    assert pool.stats().used == 4
    run_until_done(scheduler, model)


def test_a_prompt_that_fills_the_pool_is_admitted_alone_despite_the_watermark() -> None:
    scheduler, _, model = make_scheduler(num_blocks=5, watermark=0.5)
    sequence = make_sequence("a", 16, 10)
    scheduler.add(sequence)
    run_until_done(scheduler, model, max_steps=5)
    assert sequence.output_ids == expected_output(sequence.prompt_ids, 1)
    assert scheduler.limits.max_tokens == 17


def test_when_blocks_run_out_the_last_to_arrive_is_preempted_and_ends_with_equal_tokens() -> None:
    scheduler, pool, model = make_scheduler(num_blocks=9, block_size=2)
    sequences = [make_sequence(name, 4, 10, first_token=ord(name)) for name in "abc"]
    add_all(scheduler, sequences)
    plans = [run_step(scheduler, model) for _ in range(4)]
    assert [sequence.id for plan in plans for sequence in plan.preempted] == ["c"]
    assert sequences[2].block_ids == []
    run_until_done(scheduler, model)
    for sequence in sequences:
        assert sequence.output_ids == expected_output(sequence.prompt_ids, 10)
    assert pool.stats().used == 0


def test_of_different_priorities_the_least_urgent_is_preempted_whenever_it_came() -> None:
    scheduler, _, model = make_scheduler(num_blocks=7, block_size=2)
    first = make_sequence("first", 4, 10, priority=5)
    scheduler.add(first)
    run_step(scheduler, model)
    second = make_sequence("second", 4, 10, priority=0, first_token=100)
    scheduler.add(second)
    while not (first.num_preemptions or second.num_preemptions):
        run_step(scheduler, model)
    assert first.status is SequenceStatus.PREEMPTED
    assert second.num_preemptions == 0


def test_a_preempted_sequence_finds_its_own_blocks_again() -> None:
    scheduler, _, model = make_scheduler(num_blocks=13, block_size=2)
    sequences = [make_sequence(name, 8, 7, first_token=50 * ord(name)) for name in "ab"]
    add_all(scheduler, sequences)
    run_until_done(scheduler, model)
    assert sequences[1].num_preemptions == 1
    assert sequences[1].num_cached == 0
    computed_without_reuse = 8 + 6 + 8 + 6 + 12
    assert model.num_computed_tokens < computed_without_reuse


def test_a_known_prefix_is_not_computed_again() -> None:
    scheduler, _, model = make_scheduler(block_size=4)
    scheduler.add(make_sequence("a", 12, 1))
    run_until_done(scheduler, model)
    again = Sequence("b", [*range(8), 99, 98, 97], 3)
    scheduler.add(again)
    assert shape_of(run_step(scheduler, model)) == [("b", 8, 3, True)]
    assert again.num_cached == 8
    assert scheduler.stats().total_cached_tokens == 8


def test_running_sequences_share_the_blocks_of_a_prefix() -> None:
    scheduler, pool, model = make_scheduler(block_size=4)
    first, second = make_sequence("a", 9, 9), make_sequence("b", 9, 9)
    scheduler.add(first)
    run_step(scheduler, model)
    scheduler.add(second)
    run_step(scheduler, model)
    assert first.block_ids[:2] == second.block_ids[:2]
    assert first.block_ids[2] != second.block_ids[2]
    assert pool.stats().used == 4


def test_generated_tokens_are_found_by_the_next_turn_of_a_conversation() -> None:
    scheduler, _, model = make_scheduler(block_size=4)
    first = make_sequence("a", 6, 7)
    scheduler.add(first)
    run_until_done(scheduler, model)
    second = Sequence("b", [*first.token_ids, 5], 1)
    scheduler.add(second)
    run_step(scheduler, model)
    assert second.num_cached == 12


def test_a_prompt_that_is_cached_as_a_whole_still_computes_its_last_token() -> None:
    scheduler, _, model = make_scheduler(block_size=1)
    scheduler.add(make_sequence("a", 6, 3))
    run_until_done(scheduler, model)
    again = make_sequence("b", 6, 3)
    scheduler.add(again)
    assert shape_of(run_step(scheduler, model)) == [("b", 5, 1, True)]
    run_until_done(scheduler, model)
    assert again.output_ids == expected_output(again.prompt_ids, 3)


@pytest.mark.parametrize("options", [{"needs_prompt_logprobs": True}, {"cache_salt": "other"}])
def test_prompt_logprobs_and_other_salts_get_nothing_from_the_cache(
    options: dict[str, Any],
) -> None:
    scheduler, _, model = make_scheduler()
    scheduler.add(make_sequence("a", 12, 1))
    run_until_done(scheduler, model)
    again = make_sequence("b", 12, **options)
    scheduler.add(again)
    assert shape_of(run_step(scheduler, model)) == [("b", 0, 12, True)]
    assert again.num_cached == 0


def test_without_prefix_caching_every_block_is_free_after_the_end() -> None:
    scheduler, pool, model = make_scheduler(enable_prefix_caching=False)
    scheduler.add(make_sequence("a", 12))
    run_until_done(scheduler, model)
    assert pool.stats().free == pool.stats().total


def test_update_returns_those_that_reached_their_length() -> None:
    scheduler, pool, model = make_scheduler(max_model_len=8)
    by_tokens, by_context = make_sequence("a", 3, 2), make_sequence("b", 6, 50)
    add_all(scheduler, [by_tokens, by_context])
    plan = scheduler.schedule()
    assert scheduler.update(plan, model.step(plan)) == []
    plan = scheduler.schedule()
    assert scheduler.update(plan, model.step(plan)) == [by_tokens, by_context]
    assert by_context.num_tokens == 8
    assert not scheduler.has_work
    assert pool.stats().used == 0


def test_finish_frees_blocks_and_a_second_end_does_no_harm() -> None:
    scheduler, pool, model = make_scheduler()
    sequence = make_sequence("a", 5)
    scheduler.add(sequence)
    run_step(scheduler, model)
    scheduler.finish("a")
    scheduler.finish("a")
    assert scheduler.abort("a") is None
    assert sequence.status is SequenceStatus.FINISHED
    assert pool.stats().used == 0


def test_an_abort_while_the_step_is_computed_leaves_the_others_their_tokens() -> None:
    scheduler, pool, model = make_scheduler()
    sequences = [make_sequence(name, 5, first_token=10 * ord(name)) for name in "abc"]
    add_all(scheduler, sequences)
    plan = scheduler.schedule()
    sampled = model.step(plan)
    assert scheduler.abort("b") is sequences[1]
    scheduler.update(plan, sampled)
    run_until_done(scheduler, model)
    assert sequences[1].output_ids == []
    for sequence in (sequences[0], sequences[2]):
        assert sequence.output_ids == expected_output(sequence.prompt_ids, 4)
    assert pool.stats().used == 0


def test_a_waiting_and_a_preempted_sequence_can_be_aborted() -> None:
    scheduler, pool, model = make_scheduler(num_blocks=9, block_size=2, max_num_seqs=3)
    sequences = [make_sequence(name, 4, 10, first_token=ord(name)) for name in "abcd"]
    add_all(scheduler, sequences)
    while sequences[2].status is not SequenceStatus.PREEMPTED:
        run_step(scheduler, model)
    assert scheduler.abort("c") is sequences[2]
    assert scheduler.abort("d") is sequences[3]
    assert scheduler.stats().num_waiting == 0
    run_until_done(scheduler, model)
    assert pool.stats().used == 0


def test_a_step_that_failed_is_offered_again() -> None:
    scheduler, _, model = make_scheduler(max_batched_tokens=4)
    sequence = make_sequence("a", 6)
    scheduler.add(sequence)
    lost = scheduler.schedule()
    assert shape_of(scheduler.schedule()) == shape_of(lost) == [("a", 0, 4, False)]
    run_until_done(scheduler, model)
    assert sequence.output_ids == expected_output(sequence.prompt_ids, 4)


def test_a_prompt_larger_than_the_pool_is_refused_with_limit_and_value() -> None:
    scheduler, _, _ = make_scheduler(num_blocks=5, block_size=4)
    scheduler.add(make_sequence("fits", 16))
    with pytest.raises(InvalidRequest, match=r"17 tokens needs 5 .* blocks .* limit is 4"):
        scheduler.add(make_sequence("too large", 17))


def test_a_prompt_that_fills_the_context_is_refused_with_limit_and_value() -> None:
    scheduler, _, _ = make_scheduler(max_model_len=10)
    scheduler.add(make_sequence("fits", 9))
    with pytest.raises(InvalidRequest, match=r"prompt of 10 tokens .* 10 tokens \(max_model_len\)"):
        scheduler.add(make_sequence("too long", 10))


def test_empty_prompts_no_new_tokens_and_ids_in_use_are_refused() -> None:
    scheduler, _, _ = make_scheduler()
    scheduler.add(make_sequence("a", 3))
    for wrong, words in [
        (make_sequence("b", 0), "prompt is empty"),
        (make_sequence("b", 3, 0), "max_new_tokens must be at least 1; got 0"),
        (make_sequence("a", 3), "'a' is in use"),
    ]:
        with pytest.raises(InvalidRequest, match=words):
            scheduler.add(wrong)
    assert scheduler.stats().num_waiting == 1


def test_a_full_waiting_queue_refuses_and_takes_again_when_one_has_left() -> None:
    scheduler, _, model = make_scheduler(max_num_seqs=1, max_num_waiting=2)
    add_all(scheduler, [make_sequence("a", 3), make_sequence("b", 3)])
    with pytest.raises(Unavailable, match=r"2 sequences .* limit is 2 \(max_num_waiting\)"):
        scheduler.add(make_sequence("c", 3))
    run_step(scheduler, model)
    scheduler.add(make_sequence("c", 3))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_num_seqs", 0),
        ("max_batched_tokens", 0),
        ("max_model_len", 0),
        ("max_num_waiting", 0),
        ("watermark", 1.0),
    ],
)
def test_limits_that_cannot_work_are_refused_by_name(option: str, value: float) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(InvalidConfig, match=f"{option} must be .* got {value}"):
        make_scheduler(**options)
