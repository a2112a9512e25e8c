"""One step's work: which tokens of which sequences."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from trivet.backends.llm.scheduling.sequence import Sequence, SequenceStatus


class PlannedRow(NamedTuple):
    """Tokens `start … start + count` of a sequence; a tuple, since hundreds are made a step."""

    sequence: Sequence
    start: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which no one needs here
    samples: bool  # the row reaches the last known token: its logits give the next one

    @property
    def num_drafts(self) -> int:
        """How many of its last tokens are guesses; each one's logits are wanted, too."""
        return len(self.sequence.draft_ids) if self.samples else 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step's work: decode rows first, then chunks of prompts. Empty when nothing can run."""

    rows: tuple[PlannedRow, ...]
    num_tokens: int
    num_samples: int
    preempted: tuple[Sequence, ...] = ()

    @property
    def is_decode(self) -> bool:
        """Whether each row is one token that gives the next: no part of a prompt is scored."""
        return self.num_samples == self.num_tokens

    @classmethod
    def of(cls, rows: Iterable[PlannedRow]) -> "StepPlan":
        """A step of these rows."""
        rows = tuple(rows)
        return cls(rows, sum(row.count for row in rows), sum(row.samples for row in rows))

    def alive(self) -> "StepPlan":
        """What is left when some of its sequences have ended or been taken back meanwhile."""
        running = SequenceStatus.RUNNING
        if all([row.sequence.status is running for row in self.rows]):  # noqa: C419  # a list is twice as fast
            return self
        return StepPlan.of(row for row in self.rows if row.sequence.status is running)

    @property
    def has_drafts(self) -> bool:
        """Whether some of its tokens are guesses."""
        return any(row.sequence.draft_ids for row in self.rows)

    def with_drafts(self) -> "StepPlan":
        """With the guesses that sequences have now."""
        return StepPlan.of(
            row._replace(count=row.count + row.num_drafts) if row.num_drafts else row
            for row in self.rows
        )

    def without_drafts(self) -> "StepPlan":
        """With nothing but what must be computed."""
        if not self.has_drafts:
            return self
        rows = [row._replace(count=row.count - row.num_drafts) for row in self.rows]
        for row in rows:
            row.sequence.draft_ids.clear()
        return StepPlan.of(rows)

    def halves(self) -> "tuple[StepPlan, ...]":
        """Two steps that do in turn what this one does; none if it is one token."""
        if len(self.rows) > 1:
            middle = len(self.rows) // 2
            return StepPlan.of(self.rows[:middle]), StepPlan.of(self.rows[middle:])
        if self.num_tokens < 2:
            return ()
        ((sequence, start, count, samples),) = self.rows
        first = PlannedRow(sequence, start, count // 2, samples=False)
        second = PlannedRow(sequence, start + count // 2, count - count // 2, samples)
        return StepPlan.of([first]), StepPlan.of([second])
