"""How many of a step's guesses were right, and what comes behind those."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from trivet.backends.api import ServingError
from trivet.backends.llm.device.devices import free_memory
from trivet.backends.llm.engine.generation import Generation, StepResult, choose
from trivet.backends.llm.engine.outbox import Outbox
from trivet.backends.llm.sampling.sampler import Logprobs
from trivet.backends.llm.scheduling.scheduler import Scheduler
from trivet.backends.llm.scheduling.sequence import Sequence, SequenceStatus
from trivet.backends.llm.speculation.speculation import Speculation

log = logging.getLogger(__name__)
Fail = Callable[[Iterable[Sequence], ServingError], None]
Tell = Callable[[list[Generation | None], list[int], dict[int, Logprobs]], None]


@dataclass(slots=True, eq=False)
class _Guess:
    """Behind each right one the step has computed what comes next."""

    generation: Generation
    draft_ids: list[int]
    row: int
    """Of the step's logits: the one from which the first token was chosen."""
    token: int
    """The one chosen last."""
    num_right: int = 0

    @property
    def is_right(self) -> bool:
        """Whether what was chosen last had been guessed, and the request goes on."""
        return (
            self.num_right < len(self.draft_ids)
            and self.token == self.draft_ids[self.num_right]
            and self.generation.sequence.status is SequenceStatus.RUNNING
        )


class Guesses:
    """Owned by the engine's thread."""

    def __init__(
        self, speculation: Speculation, scheduler: Scheduler, outbox: Outbox, fail: Fail, tell: Tell
    ) -> None:
        self._speculation = speculation
        self._scheduler = scheduler
        self._outbox = outbox
        self._fail = fail
        self._tell = tell

    def settle(
        self, result: StepResult, generations: list[Generation | None], tokens: list[int]
    ) -> None:
        """Of a step that is recorded, whose first tokens were told: goes on behind each guess that
        was right, one place after the other, for what is allowed at a place depends on the token
        before. Sequences have no guesses afterwards."""
        guesses = []
        for generation, row, token in zip(generations, result.sampled, tokens, strict=True):
            if generation is not None and generation.sequence.draft_ids:
                drafts = generation.sequence.draft_ids.copy()
                guesses.append(_Guess(generation, drafts, row, token))
                generation.sequence.draft_ids.clear()
        while guesses:
            right = [guess for guess in guesses if guess.is_right]
            for guess in guesses:
                if guess not in right:
                    sequence = guess.generation.sequence
                    self._speculation.note(sequence, len(guess.draft_ids), guess.num_right)
            guesses = right if right and self._go_on(result, right) else []

    def _go_on(self, result: StepResult, guesses: list[_Guess]) -> bool:
        """False where memory does not suffice: the next step computes them, then."""
        self._outbox.flush()  # a message has no order
        generations: list[Generation | None] = [guess.generation for guess in guesses]
        try:
            logits = result.logits_at([guess.row + guess.num_right + 1 for guess in guesses])
            tokens, logprobs, errors = choose(logits, generations)
        except torch.OutOfMemoryError:
            # The step is recorded, and must not be tried again.
            log.exception("guesses that were right are computed again")
            free_memory()
            return False
        for index, error in errors.items():
            self._fail([guesses[index].generation.sequence], error)
            generations[index] = None
        self._scheduler.accept([guess.generation.sequence for guess in guesses], tokens)
        self._tell(generations, tokens, logprobs)
        for guess, token in zip(guesses, tokens, strict=True):
            guess.token = token
            guess.num_right += 1
        return True
