"""Which tokens come out of a step: samples rows, keeps log probabilities, sees ends."""

import time
from collections.abc import Sequence as Row
from dataclasses import dataclass, field

from torch import Tensor

from trivet.backends.api import ServingError
from trivet.backends.llm.messages import Output, Submit, TopLogprobs
from trivet.backends.llm.sampling.sampler import (
    Constraint,
    Logprobs,
    RowState,
    logprobs_of,
    sample,
)
from trivet.backends.llm.sampling.thinking import ThinkingBudget
from trivet.backends.llm.scheduling.plan import StepPlan
from trivet.backends.llm.scheduling.sequence import Sequence


@dataclass(slots=True, eq=False)
class Generation:
    """One request while the engine has it."""

    submit: Submit
    sequence: Sequence
    row: RowState
    added_s: float
    is_started: bool = False
    queue_s: float = 0.0
    prompt_logprobs: list[TopLogprobs] = field(default_factory=list)

    def note_start(self) -> None:
        if not self.is_started:
            self.is_started = True
            self.queue_s = time.monotonic() - self.added_s


def sequence_of(submit: Submit, most_tokens: int, adapter_slot: int) -> Sequence:
    """A request as the scheduler has it. `most_tokens`: of any sequence."""
    wanted = submit.sampling.max_tokens
    return Sequence(
        submit.id,
        submit.prompt_ids,
        # Where it is not said, the scheduler cuts it to what fits behind the prompt. Scoring alone
        # takes a token too, which is not told.
        max_new_tokens=most_tokens if wanted is None else max(wanted, 1),
        priority=submit.priority,
        needs_prompt_logprobs=submit.sampling.prompt_logprobs is not None,
        # An adapter's key has no NUL: no salt makes a prefix another's.
        cache_salt=f"{submit.adapter}\0{submit.cache_salt}",
        adapter_slot=adapter_slot,
    )


def row_of(submit: Submit, constraint: Constraint | None) -> RowState:
    """What sampling must know of a request."""
    budget = submit.sampling.thinking_token_budget
    thinking = None
    if budget is not None and submit.thought_marks:
        opening, closing = submit.thought_marks
        thinking = ThinkingBudget(budget, opening, closing, submit.prompt_ids)
    return RowState(
        submit.sampling,
        submit.seed,
        submit.prompt_ids,
        tuple(submit.end_ids),
        tuple(map(tuple, submit.bad_word_ids)),
        constraint,
        thinking,
    )


def logits_rows(plan: StepPlan) -> list[int]:
    """The tokens of a step, by their place in it, whose logits are needed: the last of each row
    that samples and those of its guesses, and all but the last prompt token of those whose prompt
    is scored."""
    if plan.is_decode:
        return list(range(plan.num_tokens))
    rows: list[int] = []
    place = 0
    for sequence, start, count, samples in plan.rows:
        if sequence.needs_prompt_logprobs and start < sequence.num_prompt - 1:
            end = min(start + count, sequence.num_prompt - 1)
            rows.extend(range(place, place + end - start))
        if samples:
            rows.extend(range(place + count - 1 - len(sequence.draft_ids), place + count))
        place += count
    return rows


class StepResult:
    """A step's logits taken apart again, in the order of `logits_rows`."""

    def __init__(self, plan: StepPlan, logits: Tensor) -> None:
        self.plan = plan
        self._logits = logits
        self.sampled: list[int] = []
        """Rows of logits to sample from, one for each plan row that samples; those of its guesses
        lie behind it. Of a plan that decodes each row is one."""
        self.scored: list[tuple[Sequence, int, int, int]] = []
        """Sequence, its first position, first row and number of rows of logits."""
        self._is_decode = plan.is_decode
        if plan.is_decode:
            return
        row = 0
        for sequence, start, count, samples in plan.rows:
            if sequence.needs_prompt_logprobs and start < sequence.num_prompt - 1:
                num_rows = min(start + count, sequence.num_prompt - 1) - start
                self.scored.append((sequence, start, row, num_rows))
                row += num_rows
            if samples:
                self.sampled.append(row)
                row += 1 + len(sequence.draft_ids)

    def sampling_logits(self) -> Tensor:
        """float32 [rows that sample, vocabulary]; may be changed."""
        if self._is_decode or len(self.sampled) == len(self._logits):
            return self._logits
        return self._logits[self.sampled]

    def logits_at(self, rows: Row[int]) -> Tensor:
        """float32 [rows, vocabulary] of these rows; may be changed."""
        return self._logits[list(rows)]

    def score(self, generations: dict[str, Generation]) -> None:
        """Adds the log probabilities of the prompt tokens that this step computed."""
        for sequence, start, row, count in self.scored:
            generation = generations.get(sequence.id)
            if generation is None or generation.sequence is not sequence:
                continue
            # After a preemption tokens are computed again that have been scored before.
            have = max(len(generation.prompt_logprobs) - start, 0)
            if have >= count:
                continue
            num_top = generation.submit.sampling.prompt_logprobs or 0
            # The scheduler's own ids are of images' rows where the prompt has tokens.
            token_ids = generation.submit.prompt_ids[start + have + 1 : start + count + 1]
            found = logprobs_of(self._logits[row + have : row + count], token_ids, num_top)
            generation.prompt_logprobs += [_plain(each) for each in found]


def choose(
    logits: Tensor, generations: Row[Generation | None]
) -> tuple[list[int], dict[int, Logprobs], dict[int, ServingError]]:
    """A token for each row of `logits`, float32 [rows, vocabulary], which is changed.

    Also log probabilities by row where they are wanted, and errors by row: what goes wrong with one
    request's wishes is that request's alone. A row without a generation gets token 0.
    """
    alive = [generation.row for generation in generations if generation is not None]
    if len(alive) == len(generations) and not any([row.wants_logprobs for row in alive]):  # noqa: C419  # a list is twice as fast
        tokens, errors = sample(logits, alive)
        return tokens, {}, errors
    return _choose_some(logits, generations)


def _choose_some(
    logits: Tensor, generations: Row[Generation | None]
) -> tuple[list[int], dict[int, Logprobs], dict[int, ServingError]]:
    logprobs: dict[int, Logprobs] = {}
    wanted = [
        index
        for index, generation in enumerate(generations)
        if generation is not None and generation.submit.sampling.logprobs is not None
    ]
    raw = logits[wanted].clone() if wanted else logits[:0]
    alive = [index for index, generation in enumerate(generations) if generation is not None]
    rows = [generations[index].row for index in alive]  # type: ignore[union-attr]
    part = logits if len(alive) == len(generations) else logits[alive]
    chosen, failed = sample(part, rows) if alive else ([], {})
    tokens = [0] * len(generations)
    for index, token in zip(alive, chosen, strict=True):
        tokens[index] = token
    for index, row in zip(wanted, raw, strict=True):
        sampling = generations[index].submit.sampling  # type: ignore[union-attr]
        (logprobs[index],) = logprobs_of(
            row.unsqueeze(0), [tokens[index]], sampling.logprobs or 0, sampling.logprob_token_ids
        )
    return tokens, logprobs, {alive[index]: text for index, text in failed.items()}


def output_of(
    generation: Generation, token: int, logprobs: Logprobs | None, *, is_last: bool, first: bool
) -> Output:
    """What the client's side is told of one new token."""
    finish = "length" if is_last else ""
    if token in generation.row.end_ids:
        is_early = len(generation.row.output_ids) <= generation.submit.sampling.min_tokens
        finish = finish if is_early else "stop"
    if not first and logprobs is None:
        return Output(generation.sequence.id, [token], finish)
    return Output(
        generation.sequence.id,
        [token],
        finish,
        logprobs=None if logprobs is None else [_plain(logprobs)],
        prompt_logprobs=generation.prompt_logprobs
        if first and generation.sequence.needs_prompt_logprobs
        else None,
        num_cached=generation.sequence.num_cached if first else 0,
        queue_s=generation.queue_s if first else 0.0,
    )


def _plain(logprobs: Logprobs) -> TopLogprobs:
    return (
        logprobs.token_id,
        logprobs.logprob,
        logprobs.rank,
        logprobs.top_ids,
        logprobs.top_logprobs,
    )
