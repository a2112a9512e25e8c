"""Random walks of 100,000 steps keep the scheduler's invariants and the model's output."""

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paged_model import (
    VOCABULARY_SIZE,
    PagedModel,
    expected_output,
    make_scheduler,
    run_until_done,
)

from trivet.backends.llm.scheduling.blocks import NULL_BLOCK, BlockPool
from trivet.backends.llm.scheduling.plan import StepPlan
from trivet.backends.llm.scheduling.scheduler import Scheduler
from trivet.backends.llm.scheduling.sequence import Sequence, SequenceStatus

STEPS_OF_A_WALK = 5000
MAX_PROMPT = 20
MAX_NEW_TOKENS = 24


@dataclass(slots=True)
class Walk:
    """A scheduler driven at random, checked before and after every step."""

    random: random.Random
    is_fcfs: bool
    arrival_rate: float
    block_size: int
    max_num_seqs: int
    budget: int | None
    scheduler: Scheduler
    pool: BlockPool
    model: PagedModel
    templates: list[list[int]]
    live: dict[str, Sequence] = field(default_factory=dict)
    due_steps: dict[str, int] = field(default_factory=dict)
    num_steps: int = 0
    num_added: int = 0
    num_preempted: int = 0

    def act(self) -> None:
        """Perhaps a new sequence, perhaps an abort or an early end."""
        if len(self.live) < 12 and self.random.random() < self.arrival_rate:
            self._add()
        if self.live and self.random.random() < 0.02:
            sequence = self.random.choice(list(self.live.values()))
            assert self.scheduler.abort(sequence.id) is sequence
            self._retire(sequence)

    def step(self) -> None:
        plan = self.scheduler.schedule()
        self._check_plan(plan)
        self._check_pool()
        self.scheduler.update(plan, self.model.step(plan))
        self.num_steps += 1
        self.num_preempted += len(plan.preempted)
        for row in plan.rows:
            if row.sequence.status is SequenceStatus.FINISHED:
                self._retire(row.sequence)
        self._check_pool()
        self._check_no_starvation()

    def _add(self) -> None:
        template = self.random.choice(self.templates)
        prompt = template[: self.random.randint(1, MAX_PROMPT)]
        if self.random.random() < 0.5:
            prompt[-1] = self.random.randrange(VOCABULARY_SIZE)
        sequence = Sequence(
            str(self.num_added),
            prompt,
            self.random.randint(1, MAX_NEW_TOKENS),
            priority=0 if self.is_fcfs else self.random.randrange(3),
            needs_prompt_logprobs=self.random.random() < 0.1,
            cache_salt=self.random.choice(["", "", "tenant"]),
        )
        self.num_added += 1
        self.scheduler.add(sequence)
        self.live[sequence.id] = sequence
        # The first in order computes a token in every step, so it is done after `token_limit`.
        bound_steps = sum(other.token_limit for other in self.live.values())
        self.due_steps[sequence.id] = self.num_steps + bound_steps

    def _retire(self, sequence: Sequence) -> None:
        del self.live[sequence.id]
        output = sequence.output_ids
        assert output == expected_output(sequence.prompt_ids, len(output))
        assert sequence.block_ids == []

    def _check_plan(self, plan: StepPlan) -> None:
        rows = plan.rows
        assert plan.rows or not self.live, "no progress"
        assert plan.num_tokens == sum(row.count for row in rows)
        assert self.budget is None or plan.num_tokens <= self.budget
        assert plan.num_samples == sum(row.samples for row in rows)
        assert len({id(row.sequence) for row in rows}) == len(rows) <= self.max_num_seqs
        assert not set(plan.preempted) & {row.sequence for row in rows}
        for row in rows:
            end = row.start + row.count
            assert row.count > 0
            assert row.sequence.status is SequenceStatus.RUNNING
            assert row.start == row.sequence.num_computed
            assert row.samples == (end == row.sequence.num_tokens)
            assert end <= len(row.sequence.block_ids) * self.block_size

    def _check_pool(self) -> None:
        counts: Counter[int] = Counter()
        for sequence in self.live.values():
            table = sequence.block_ids
            counts.update(table)
            assert len(set(table)) == len(table)
            assert sequence.num_computed <= min(sequence.num_tokens, len(table) * self.block_size)
            assert sequence.status is SequenceStatus.RUNNING or not table
        assert counts[NULL_BLOCK] == 0
        blocks = self.pool.stats()
        assert blocks.free + blocks.used + blocks.cached == blocks.total
        assert blocks.used == len(counts)
        for block_id in range(1, blocks.total + 1):
            assert self.pool.references(block_id) == counts[block_id]
            assert counts[block_id] < 2 or self.pool.is_published(block_id)

    def _check_no_starvation(self) -> None:
        if self.is_fcfs:
            late = [key for key in self.live if self.due_steps[key] < self.num_steps]
            assert not late


def make_walk(seed: int) -> Walk:
    """A walk whose limits are drawn from the seed; the smallest pools force preemption."""
    choice = random.Random(seed)
    block_size = choice.choice([1, 2, 4, 16])
    longest = MAX_PROMPT + MAX_NEW_TOKENS
    num_blocks = choice.choice([1, 1, 2]) * -(-longest // block_size) + choice.randint(1, 3)
    budget = choice.choice([1, 5, 16, 64, None])
    max_num_seqs = choice.choice([3, 8, 8])
    scheduler, pool, model = make_scheduler(
        num_blocks=num_blocks,
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_batched_tokens=budget,
        enable_prefix_caching=choice.random() < 0.75,
        watermark=choice.choice([0.0, 0.0, 0.3]),
    )
    return Walk(
        random=choice,
        is_fcfs=seed % 2 == 0,
        arrival_rate=choice.choice([0.2, 0.6]),
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        budget=budget,
        scheduler=scheduler,
        pool=pool,
        model=model,
        templates=[[choice.randrange(VOCABULARY_SIZE) for _ in range(MAX_PROMPT)] for _ in "abc"],
    )


@pytest.mark.parametrize("seed", range(12))
def test_a_random_walk_keeps_every_invariant_and_drains_to_an_unused_pool(seed: int) -> None:
    walk = make_walk(seed)
    while walk.num_steps < STEPS_OF_A_WALK:
        walk.act()
        walk.step()
    left = sum(2 * sequence.token_limit for sequence in walk.live.values())
    while walk.live:
        walk.step()
    assert walk.num_steps <= STEPS_OF_A_WALK + left
    assert walk.pool.stats().used == 0
    assert not walk.scheduler.has_work


def test_the_walks_do_preempt_and_do_hit_the_prefix_cache() -> None:
    num_preempted = num_cached = 0
    for seed in range(20):
        walk = make_walk(seed)
        for _ in range(200):
            walk.act()
            walk.step()
        num_preempted += walk.num_preempted
        num_cached += walk.scheduler.stats().total_cached_tokens
    assert num_preempted > 100
    assert num_cached > 500


prompts = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 40), st.integers(1, 12), st.integers(0, 8)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(
    requests=prompts,
    block_size=st.sampled_from([1, 4, 16, 64]),
    budget=st.sampled_from([1, 16, 64, None]),
    max_num_seqs=st.sampled_from([1, 3, 8]),
    spare_blocks=st.integers(0, 40),
    enable_prefix_caching=st.booleans(),
)
def test_output_does_not_depend_on_limits_blocks_preemption_prefix_cache_or_company(
    requests: list[tuple[int, int, int, int]],
    block_size: int,
    budget: int | None,
    max_num_seqs: int,
    spare_blocks: int,
    enable_prefix_caching: bool,
) -> None:
    scheduler, pool, model = make_scheduler(
        num_blocks=1 + -(-52 // block_size) + spare_blocks,  # one request of 40 + 12 fits
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_batched_tokens=budget,
        enable_prefix_caching=enable_prefix_caching,
    )
    sequences = []
    for index, (family, length, max_new_tokens, delay_steps) in enumerate(requests):
        prompt = [(family * 7 + position * position) % 50 for position in range(length)]
        sequences.append(Sequence(str(index), prompt, max_new_tokens))
        scheduler.add(sequences[-1])
        for _ in range(delay_steps):
            plan = scheduler.schedule()
            scheduler.update(plan, model.step(plan))
    run_until_done(scheduler, model)
    assert [sequence.output_ids for sequence in sequences] == [
        expected_output(sequence.prompt_ids, sequence.max_new_tokens) for sequence in sequences
    ]
    assert pool.stats().used == 0
