"""One request's tokens and how far they are computed. Knows no cache, no model, no clock."""

from dataclasses import KW_ONLY, dataclass, field
from enum import Enum

from trivet.backends.llm.scheduling.prefix import BlockKey

PENDING = -1
"""Stands in `token_ids` for a token that the device has not told yet."""


class SequenceStatus(Enum):
    """Where a sequence is. PREEMPTED waits like WAITING, but has been running before."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and what was generated after it. Written by the scheduler only.

    `token_ids` is append-only, but for its last `num_pending`: those of steps under way.
    `num_computed <= len(token_ids)` counts the tokens whose keys and values lie in the cache, in
    the blocks of `block_ids`, once the steps under way are done.
    """

    id: str
    prompt_ids: list[int]
    max_new_tokens: int
    _: KW_ONLY
    priority: int = 0  # lower goes first
    needs_prompt_logprobs: bool = False  # every prompt token is computed, cached or not
    cache_salt: str = ""  # only sequences of equal salt share cached blocks
    adapter_slot: int = 0  # where its adapter is among those that can be computed; 0: it has none
    arrival: int = 0  # given by Scheduler.add; breaks ties of priority
    token_ids: list[int] = field(init=False)
    num_prompt: int = field(init=False)
    token_limit: int = field(init=False)  # prompt and output; Scheduler.add lowers it to what fits
    status: SequenceStatus = field(init=False, default=SequenceStatus.WAITING)
    num_computed: int = field(init=False, default=0)
    num_pending: int = field(init=False, default=0)
    num_cached: int = field(init=False, default=0)  # prompt tokens found in the cache at first
    max_chunk: int = field(init=False, default=0)  # tokens of it in a step at most; 0: any number
    num_preemptions: int = field(init=False, default=0)
    block_ids: list[int] = field(init=False, default_factory=list)
    block_keys: list[BlockKey] = field(init=False, default_factory=list)  # of full blocks, lazily
    num_published: int = field(init=False, default=0)  # leading blocks offered to the prefix index
    draft_room: int = field(init=False, default=0)  # tokens that may be guessed for the next step
    draft_ids: list[int] = field(init=False, default_factory=list)
    """Guesses that the next step computes behind the last token. Whoever guesses writes them."""

    def __post_init__(self) -> None:
        self.token_ids = list(self.prompt_ids)
        self.num_prompt = len(self.prompt_ids)
        self.token_limit = self.num_prompt + self.max_new_tokens

    @property
    def num_tokens(self) -> int:
        """Prompt and output tokens known so far."""
        return len(self.token_ids)

    @property
    def output_ids(self) -> list[int]:
        """The tokens generated so far (a copy)."""
        return self.token_ids[self.num_prompt :]
