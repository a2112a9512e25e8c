"""Which tokens of which sequences the next step computes. No tensors, no clock, no threads."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from trivet.backends.api.errors import InvalidConfig, InvalidRequest, QueueFull
from trivet.backends.llm.scheduling.blocks import BlockPool, BlockStats
from trivet.backends.llm.scheduling.limits import SequenceLimits
from trivet.backends.llm.scheduling.plan import PlannedRow, StepPlan
from trivet.backends.llm.scheduling.sequence import PENDING, Sequence, SequenceStatus
from trivet.backends.llm.scheduling.tables import BlockTables

DEFAULT_MAX_NUM_WAITING = 1024

_order = attrgetter("priority", "arrival")


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """Gauges of this moment and counters since the start (`total_…`)."""

    num_running: int
    num_waiting: int
    total_preemptions: int
    total_prompt_tokens: int
    total_cached_tokens: int
    blocks: BlockStats


class Scheduler:
    """Continuous batching within a token budget. Owned by the engine's thread.

    A step is `plan = schedule()`, the model, `update(plan, sampled)`; or, where the next step is to
    be planned before this one's tokens are known, `launch(plan)` and later `land(plan, sampled)`,
    with at most one more step launched between. Sequences run in the order of (priority, arrival).
    Blocks for all known tokens are reserved on admission; when decoding runs out of blocks, the
    last in order is preempted and later recomputed. A plan that is neither launched nor recorded
    changes nothing: the next one offers the same tokens again.

    Blocks that are released while a step under way writes to them may be given to another sequence
    at once: the device computes steps in order, and only what has landed is published.

    A model in stages has as many steps under way, of other sequences each. Who has preempted some
    lands all of them before the next plan.
    """

    def __init__(
        self,
        pool: BlockPool,
        *,
        max_num_seqs: int,
        max_batched_tokens: int | None,
        block_size: int,
        enable_prefix_caching: bool,
        max_model_len: int,
        watermark: float = 0.01,
        max_num_waiting: int = DEFAULT_MAX_NUM_WAITING,
        num_stages: int = 1,
    ) -> None:
        """`max_batched_tokens` None: no limit. `watermark`: share of blocks left on admission.
        `num_stages`: more than 1 have steps under way whose tokens the next plan does not need."""
        assert block_size == pool.block_size, "pool and scheduler disagree on block_size"
        _check_positive(
            max_num_seqs=max_num_seqs,
            max_batched_tokens=max_batched_tokens,
            max_model_len=max_model_len,
            max_num_waiting=max_num_waiting,
            num_stages=num_stages,
        )
        if not 0 <= watermark < 1:
            raise InvalidConfig(f"watermark must be at least 0 and below 1; got {watermark}")
        self._pool = pool
        self._block_size = block_size
        self._tables = BlockTables(pool, enable_prefix_caching=enable_prefix_caching)
        self.limits = SequenceLimits(max_model_len, pool.num_usable, block_size)
        self._max_num_waiting = max_num_waiting
        self._budget = max_batched_tokens or max_num_seqs * max_model_len
        self._max_num_seqs = max_num_seqs
        self._num_stages = num_stages
        self._num_under_way = 0
        """Steps that were launched and have not landed."""
        self._num_spare = int(watermark * pool.num_usable)
        self._waiting: list[Sequence] = []  # both lists are sorted by _order
        self._running: list[Sequence] = []
        self._sequences: dict[str, Sequence] = {}
        self._set_back: list[Sequence] = []
        """Preempted since the last plan, which is to tell."""
        self._num_added = 0
        self._total_preemptions = 0
        self._total_prompt_tokens = 0
        self._total_cached_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether any sequence is running or waiting."""
        return bool(self._sequences)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence.

        Raises `InvalidRequest` if it can never run, `QueueFull` (an `Unavailable`) if too many
        wait. Its output ends at `limits.max_tokens` tokens at the latest.
        """
        if sequence.id in self._sequences:
            raise InvalidRequest(f"sequence id '{sequence.id}' is in use; give each its own")
        self.limits.check(sequence)
        if len(self._waiting) >= self._max_num_waiting:
            raise QueueFull(
                f"{len(self._waiting)} sequences are waiting, the limit is "
                f"{self._max_num_waiting} (max_num_waiting); try again later"
            )
        sequence.arrival = self._num_added
        sequence.token_limit = min(sequence.token_limit, self.limits.max_tokens)
        self._num_added += 1
        self._sequences[sequence.id] = sequence
        insort(self._waiting, sequence, key=_order)

    def abort(self, sequence_id: str) -> Sequence | None:
        """Take a sequence out wherever it is and free its blocks; None if it is not known."""
        sequence = self._sequences.pop(sequence_id, None)
        if sequence is None:
            return None
        is_running = sequence.status is SequenceStatus.RUNNING
        queue = self._running if is_running else self._waiting
        del queue[bisect_left(queue, _order(sequence), key=_order)]
        self._tables.release(sequence)
        sequence.status = SequenceStatus.FINISHED
        self._forget_pending(sequence)
        return sequence

    def finish(self, sequence_id: str) -> None:
        """End a sequence whose answer is complete; nothing happens if it has ended before."""
        self.abort(sequence_id)

    def reset_prefix_cache(self, *, is_anew: bool) -> None:
        """Forgets what prompts begin with. What runs goes on with what it has, unless it is to be
        computed `is_anew`, too. No step may be under way."""
        while is_anew and self._running:
            victim = self._running.pop()
            self._preempt(victim)
            self._set_back.append(victim)
        self._tables.forget(self._sequences.values())

    def schedule(self, wanted: Callable[[Sequence], int] | None = None) -> StepPlan:
        """Choose the next step's tokens, at most `max_batched_tokens`, and reserve their blocks.

        `wanted`: how many tokens may be guessed behind a sequence's last; as far as nobody else
        needs blocks and budget, it gets `draft_room` for them.
        """
        rows: list[PlannedRow] = []
        preempted, self._set_back = self._set_back, []
        partial = self._plan_decodes(rows, preempted)
        num_samples = len(rows)
        budget = self._budget - len(rows)
        for sequence in partial:
            if budget:
                budget -= self._plan_chunk(rows, sequence, budget)
        if self._waiting and not preempted:  # else the preempted would take their blocks back
            budget = self._admit(rows, budget)
        num_samples += sum(row.samples for row in rows[num_samples:])
        if wanted is not None:
            self._make_room(rows, budget, wanted)
        return StepPlan(tuple(rows), self._budget - budget, num_samples, tuple(preempted))

    def update(self, plan: StepPlan, sampled: list[int]) -> list[Sequence]:
        """Record a computed step; `sampled` has one token for each row of `plan` that samples.

        Returns the sequences that reached their length; they are finished, their blocks free.
        Rows of sequences that were aborted meanwhile are passed over.
        """
        assert len(sampled) == plan.num_samples, "one token for each row that samples"
        tokens = iter(sampled)
        ended = []
        running, block_size = SequenceStatus.RUNNING, self._block_size
        # What `launch` and `land` do, in one pass: with hundreds of rows two are felt.
        for sequence, start, count, samples in plan.rows:
            if samples:
                token = next(tokens)
            if sequence.status is not running:
                continue
            end = start + count
            if sequence.draft_ids:
                end -= len(sequence.draft_ids)  # until `accept` says that they were right
            sequence.num_computed = end
            if samples:
                sequence.token_ids.append(token)
                if len(sequence.token_ids) >= sequence.token_limit:
                    ended.append(sequence)
            if end >= (sequence.num_published + 1) * block_size:
                self._tables.publish(sequence, end)
        for sequence in ended:
            self.finish(sequence.id)
        return ended

    def accept(self, sequences: Iterable[Sequence], tokens: Iterable[int]) -> None:
        """Of each sequence the last token was guessed, so that the step recorded last computed it,
        too; `tokens` are what comes behind. Those that have ended meanwhile are passed over."""
        for sequence, token in zip(sequences, tokens, strict=True):
            if sequence.status is not SequenceStatus.RUNNING:
                continue
            sequence.num_computed += 1
            sequence.token_ids.append(token)
            if sequence.num_computed >= (sequence.num_published + 1) * self._block_size:
                self._tables.publish(sequence, sequence.num_computed)
            if len(sequence.token_ids) >= sequence.token_limit:
                self.finish(sequence.id)

    def launch(self, plan: StepPlan) -> None:
        """A step is under way: the next plan goes on behind it, with tokens yet to be told."""
        self._num_under_way += 1
        for sequence, start, count, samples in plan.rows:
            if sequence.status is SequenceStatus.RUNNING:
                sequence.num_computed = start + count
                if samples:
                    sequence.token_ids.append(PENDING)
                    sequence.num_pending += 1

    def land(self, plan: StepPlan, sampled: list[int]) -> list[Sequence]:
        """The tokens of the first step under way; see `update`.

        A sequence that was preempted meanwhile gets its token all the same. One whose token is
        `PENDING` could not be decided: its last known token is computed again.
        """
        assert len(sampled) == plan.num_samples, "one token for each row that samples"
        self._num_under_way -= 1
        tokens = iter(sampled)
        ended, undecided = [], []
        running, block_size = SequenceStatus.RUNNING, self._block_size
        for sequence, start, count, samples in plan.rows:
            num_pending = sequence.num_pending
            if samples:
                token = next(tokens)
                if not num_pending:
                    continue  # finished or taken back
                if token == PENDING:
                    undecided.append(sequence)
                else:
                    sequence.token_ids[-num_pending] = token
                    sequence.num_pending = num_pending = num_pending - 1
                    if len(sequence.token_ids) - num_pending >= sequence.token_limit:
                        ended.append(sequence)
            if sequence.status is running:
                end = start + count
                if end >= (sequence.num_published + 1) * block_size:
                    self._tables.publish(sequence, end)
        for sequence in ended:
            self.finish(sequence.id)
        for sequence in undecided:
            self._take_back(sequence)
        return ended

    def take_back(self, sequence: Sequence) -> None:
        """Has a running sequence computed anew from its first token: what lies beside its blocks
        is lost. Nothing is under way. One that does not run stays as it is."""
        if sequence.status is SequenceStatus.RUNNING:
            self._take_back(sequence)

    def stats(self) -> SchedulerStats:
        """Numbers for metrics."""
        return SchedulerStats(
            num_running=len(self._running),
            num_waiting=len(self._waiting),
            total_preemptions=self._total_preemptions,
            total_prompt_tokens=self._total_prompt_tokens,
            total_cached_tokens=self._total_cached_tokens,
            blocks=self._pool.stats(),
        )

    def _plan_decodes(self, rows: list[PlannedRow], preempted: list[Sequence]) -> list[Sequence]:
        """Rows of sequences that lack one token; returns those that lack more.

        All fit into the budget: a sequence is admitted only with a token of it to spare. Preemption
        takes from the end of the list, which the loop has not reached yet.
        """
        partial = []
        block_size = self._block_size
        append, new = rows.append, tuple.__new__  # PlannedRow(…) takes almost twice the time
        for sequence in self._running if self._num_stages == 1 else self._share():
            start = sequence.num_computed
            end = len(sequence.token_ids)
            if end >= sequence.token_limit:
                continue  # its last token is under way
            if end - start > 1:
                partial.append(sequence)
                continue
            if end > len(sequence.block_ids) * block_size and not self._grow(sequence, preempted):
                break
            append(new(PlannedRow, (sequence, start, 1, True)))
        return partial

    def _share(self) -> Iterator[Sequence]:
        """A step's part of the sequences that run and of which no token is under way: as many are
        left for each of the steps that may be begun behind it, so that no stage waits."""
        ready = [sequence for sequence in self._running if not sequence.num_pending]
        num_steps = max(self._num_stages - self._num_under_way, 1)
        running = SequenceStatus.RUNNING  # those that are behind may be preempted meanwhile
        return (
            sequence
            for sequence in ready[: -(-len(ready) // num_steps)]
            if sequence.status is running
        )

    def _grow(self, sequence: Sequence, preempted: list[Sequence]) -> bool:
        """One block more, taken from those behind if need be; False if it was last itself."""
        while not self._tables.grow(sequence):
            victim = self._running.pop()
            self._preempt(victim)
            preempted.append(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        sequence.num_preemptions += 1
        self._total_preemptions += 1
        self._requeue(sequence)

    def _requeue(self, sequence: Sequence) -> None:
        self._tables.release(sequence)
        sequence.draft_room = 0
        sequence.draft_ids.clear()
        sequence.status = SequenceStatus.PREEMPTED
        insort(self._waiting, sequence, key=_order)

    def _take_back(self, sequence: Sequence) -> None:
        """Forgets what steps under way make of a sequence; its cached blocks make that cheap."""
        self._forget_pending(sequence)
        if sequence.status is SequenceStatus.RUNNING:
            del self._running[bisect_left(self._running, _order(sequence), key=_order)]
            self._requeue(sequence)

    @staticmethod
    def _forget_pending(sequence: Sequence) -> None:
        if sequence.num_pending:
            del sequence.token_ids[-sequence.num_pending :]
            sequence.num_pending = 0

    def _plan_chunk(self, rows: list[PlannedRow], sequence: Sequence, budget: int) -> int:
        start = sequence.num_computed
        missing = len(sequence.token_ids) - start
        count = min(missing, budget, sequence.max_chunk or missing)
        rows.append(PlannedRow(sequence, start, count, count == missing))
        return count

    def _admit(self, rows: list[PlannedRow], budget: int) -> int:
        """Start waiting sequences in order; returns the budget that is left.

        The first that does not fit stops all behind it, so no one is starved by smaller ones. The
        spare blocks keep running sequences from being preempted at once; with none running they
        would keep out a prompt that fills the pool.
        """
        while budget and self._waiting and len(self._running) < self._max_num_seqs:
            sequence = self._waiting[0]
            num_spare = self._num_spare if self._running else 0
            if not self._tables.reserve(sequence, num_spare=num_spare):
                break
            self._count_prompt(sequence)
            del self._waiting[0]
            sequence.status = SequenceStatus.RUNNING
            insort(self._running, sequence, key=_order)
            budget -= self._plan_chunk(rows, sequence, budget)
        return budget

    def _make_room(
        self, rows: list[PlannedRow], budget: int, wanted: Callable[[Sequence], int]
    ) -> None:
        for sequence, _, count, samples in rows:
            sequence.draft_room = 0
            sequence.draft_ids.clear()
            num_known = len(sequence.token_ids)
            if count > 1 or not samples:
                continue
            # The token that is chosen behind the last guess needs no room in this step.
            room = min(wanted(sequence), sequence.token_limit - num_known - 1, budget)
            while room > 0 and num_known + room > len(sequence.block_ids) * self._block_size:
                # A guess is worth no preemption: each that runs may need a block at the next step.
                is_scarce = self._pool.num_available <= len(self._running)
                if is_scarce or not self._tables.grow(sequence):
                    room = len(sequence.block_ids) * self._block_size - num_known
            sequence.draft_room = max(room, 0)
            budget -= sequence.draft_room

    def _count_prompt(self, sequence: Sequence) -> None:
        if sequence.status is SequenceStatus.WAITING:
            sequence.num_cached = sequence.num_computed
            self._total_prompt_tokens += sequence.num_prompt
            self._total_cached_tokens += sequence.num_cached


def _check_positive(**limits: int | None) -> None:
    for name, value in limits.items():
        if value is not None and value < 1:
            raise InvalidConfig(f"{name} must be at least 1; got {value}")
