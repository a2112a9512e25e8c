"""How many tokens are guessed, and what became of them.

A guess is right if the token that is chosen at its place, by the request's own rules, with the
number that is drawn for that place, is the guessed one. So outputs are those of an engine without
speculation, token by token, whatever the guesses: the scheme of Leviathan et al. (2022) for a
drafter that is sure of each of its tokens, and with draws that are numbered by place, exact instead
of equal in distribution.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from trivet.backends.llm.device.devices import DEVICE_LOST
from trivet.backends.llm.sampling.sampler import RowState
from trivet.backends.llm.scheduling.plan import StepPlan
from trivet.backends.llm.scheduling.sequence import Sequence
from trivet.backends.llm.speculation.costs import StepCosts
from trivet.backends.llm.speculation.drafter import Drafter

log = logging.getLogger(__name__)
_KEPT = 0.95
"""Of what is known of a sequence's guesses, at each guess after it."""
_IDLE_KEPT = 0.995
"""The same at a step without a guess, so that it is tried again at some time."""
_FIRST_CHANCE, _FIRST_WEIGHT = 0.5, 2.0
"""That a guess is right, as long as nothing is known of any; as if so many had been seen."""
_LEAST_CHANCE = 0.25
"""Of a new sequence's first guess, whatever became of others': one is worth a try, mostly."""


@dataclass(slots=True)
class _Luck:
    """Of some guesses, of which the last count most."""

    first_chance: float = _FIRST_CHANCE
    tried: float = 0.0
    right: float = 0.0

    @property
    def chance(self) -> float:
        """That the next one is right."""
        return (self.right + self.first_chance * _FIRST_WEIGHT) / (self.tried + _FIRST_WEIGHT)

    def note(self, tried: int, right: int) -> None:
        self.tried = self.tried * _KEPT + tried
        self.right = self.right * _KEPT + right

    def fade(self) -> None:
        self.tried *= _IDLE_KEPT
        self.right *= _IDLE_KEPT


class Speculation:
    """Owned by the engine's thread."""

    def __init__(self, drafter: Drafter, most: int) -> None:
        """`most`: tokens that are guessed of a sequence at once."""
        self._drafter = drafter
        self._most = most
        self._costs = StepCosts()
        self._drafting_s = 0.0
        """For each place of a batch's guesses, a mean of the last steps."""
        self._luck: dict[str, _Luck] = {}
        """Of each sequence."""
        self._usual_luck = _Luck()
        """Of all: what is to be expected of a new one."""
        self._num_decoding = 1
        self._num_tokens = 0
        """Of the step under way, if it only decodes; else 0."""
        self.num_drafts = 0
        self.num_draft_tokens = 0
        self.num_tried = 0
        """Guesses that stood behind none that was wrong."""
        self.accepted: Counter[int] = Counter()
        """Guesses that were right, by their place, 0 for the first."""

    def wanted(self, sequence: Sequence) -> int:
        """How many tokens are worth guessing: as long as the chance that a guess counts, times the
        time that a token takes now, is more than the time that the guess takes."""
        luck = self._luck.get(sequence.id)
        if luck is None:
            luck = self._luck[sequence.id] = _Luck(max(self._usual_luck.chance, _LEAST_CHANCE))
        running = self._num_decoding
        for_token = self._costs.of_step(running) / running
        if not for_token:
            return self._most
        needed = (self._costs.of_token() + self._drafting_s / running) / for_token
        luck.fade()
        if needed >= 1:
            return 0
        if not needed:
            return self._most
        return min(int(math.log(needed) / math.log(luck.chance)), self._most)

    def guess(self, plan: StepPlan, row_of: Callable[[Sequence], RowState]) -> StepPlan:
        """The plan with guesses behind the rows that have room for some. `row_of`: how a sequence's
        tokens are chosen."""
        is_decode = plan.is_decode
        if is_decode:
            self._num_decoding = len(plan.rows)
        self._usual_luck.fade()
        plan = self._guess(plan, row_of)
        self._num_tokens = plan.num_tokens if is_decode else 0
        return plan

    def _guess(self, plan: StepPlan, row_of: Callable[[Sequence], RowState]) -> StepPlan:
        guessing = [row.sequence for row in plan.rows if row.sequence.draft_room]
        if not guessing:
            # One guess that was slow is not held against all: they are tried again at some time.
            self._drafting_s *= _IDLE_KEPT
            return plan
        begun_s = time.monotonic()
        try:
            self._drafter.draft(guessing, [row_of(sequence) for sequence in guessing])
        except DEVICE_LOST:
            raise
        except Exception:
            # A guess that cannot be made costs no request anything.
            log.exception("guessing failed")
            for sequence in guessing:
                sequence.draft_ids.clear()
        longest = max(len(sequence.draft_ids) for sequence in guessing)
        if longest:
            spent_s = (time.monotonic() - begun_s) / longest
            self._drafting_s += 0.1 * (spent_s - self._drafting_s)
        return plan.with_drafts()

    def note(self, sequence: Sequence, num_drafts: int, num_right: int) -> None:
        """What became of a sequence's guesses."""
        self.num_drafts += 1
        self.num_draft_tokens += num_drafts
        for place in range(num_right):
            self.accepted[place] += 1
        num_tried = min(num_right + 1, num_drafts)
        self.num_tried += num_tried
        self._usual_luck.note(num_tried, num_right)
        if luck := self._luck.get(sequence.id):
            luck.note(num_tried, num_right)

    def note_step(self, seconds: float) -> None:
        """How long the step took that was guessed for last."""
        if self._num_tokens:
            self._costs.note(self._num_tokens, seconds)

    def forget(self, sequence: Sequence) -> None:
        """A sequence has ended."""
        self._luck.pop(sequence.id, None)
        self._drafter.forget(sequence)

    def stats(self) -> dict[str, float]:
        """Numbers for the metrics page."""
        return {
            "drafts": self.num_drafts,
            "draft_tokens": self.num_draft_tokens,
            "accepted_tokens": sum(self.accepted.values()),
            **{f"accepted_at_{place}": self.accepted[place] for place in range(self._most)},
        }
