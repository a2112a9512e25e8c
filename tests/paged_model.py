"""A fake language model with a paged cache: its next token depends on every cached slot it reads.

A block that is shared wrongly, reused too early or not filled changes the output.
"""

from collections.abc import Iterable

from trivet.backends.llm.scheduling.blocks import BlockPool
from trivet.backends.llm.scheduling.plan import PlannedRow, StepPlan
from trivet.backends.llm.scheduling.scheduler import Scheduler
from trivet.backends.llm.scheduling.sequence import Sequence

VOCABULARY_SIZE = 50
_MASK = (1 << 61) - 1


def _state_after(state: int, token: int) -> int:
    return (state * 6364136223846793005 + token * 2654435761 + 1442695040888963407) & _MASK


def _next_token(states: Iterable[int]) -> int:
    return (sum(states) >> 7) % VOCABULARY_SIZE


def expected_output(prompt_ids: list[int], num_tokens: int) -> list[int]:
    """What the model generates without paging, batching or scheduling."""
    states: list[int] = []
    token_ids = list(prompt_ids)
    for _ in range(num_tokens):
        for token in token_ids[len(states) :]:
            states.append(_state_after(states[-1] if states else 0, token))
        token_ids.append(_next_token(states))
    return token_ids[len(prompt_ids) :]


class PagedModel:
    """Computes the rows of a plan; counts the tokens it was given."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_computed_tokens = 0
        self._block_size = block_size
        self._blocks = [[0] * block_size for _ in range(num_blocks)]

    def step(self, plan: StepPlan) -> list[int]:
        """One sampled token for each row that samples."""
        return [token for row in plan.rows if (token := self._compute(row)) is not None]

    def _compute(self, row: PlannedRow) -> int | None:
        table, size = row.sequence.block_ids, self._block_size
        states = [state for block in table for state in self._blocks[block]][: row.start]
        for position in range(row.start, row.start + row.count):
            token = row.sequence.token_ids[position]
            states.append(_state_after(states[-1] if states else 0, token))
            self._blocks[table[position // size]][position % size] = states[-1]
        self.num_computed_tokens += row.count
        return _next_token(states) if row.samples else None


def make_scheduler(
    *,
    num_blocks: int = 65,
    block_size: int = 4,
    max_num_seqs: int = 8,
    max_batched_tokens: int | None = None,
    enable_prefix_caching: bool = True,
    max_model_len: int = 1000,
    watermark: float = 0.0,
    max_num_waiting: int = 1000,
) -> tuple[Scheduler, BlockPool, PagedModel]:
    """A scheduler, its pool (one block of it is the null block) and a model for its plans."""
    pool = BlockPool(num_blocks, block_size)
    scheduler = Scheduler(
        pool,
        max_num_seqs=max_num_seqs,
        max_batched_tokens=max_batched_tokens,
        block_size=block_size,
        enable_prefix_caching=enable_prefix_caching,
        max_model_len=max_model_len,
        watermark=watermark,
        max_num_waiting=max_num_waiting,
    )
    return scheduler, pool, PagedModel(num_blocks, block_size)


def run_step(scheduler: Scheduler, model: PagedModel) -> StepPlan:
    """Schedule, compute, record."""
    plan = scheduler.schedule()
    scheduler.update(plan, model.step(plan))
    return plan


def run_until_done(scheduler: Scheduler, model: PagedModel, *, max_steps: int = 10_000) -> int:
    """Step until nothing is left; returns the number of steps."""
    for num_steps in range(max_steps):
        if not scheduler.has_work:
            return num_steps
        run_step(scheduler, model)
    raise AssertionError(f"not done after {max_steps} steps")


def add_all(scheduler: Scheduler, sequences: Iterable[Sequence]) -> None:
    """Add sequences in order."""
    for sequence in sequences:
        scheduler.add(sequence)
