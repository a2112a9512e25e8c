"""What guesses tokens."""

from collections.abc import Sequence as Row
from typing import Protocol

from trivet.backends.llm.sampling.sampler import RowState
from trivet.backends.llm.scheduling.sequence import Sequence


class Drafter(Protocol):
    """Owned by the engine's thread. Its guesses may be wrong, late or none: outputs stay the same,
    only the time they take does not."""

    def draft(self, sequences: Row[Sequence], rows: Row[RowState], /) -> None:
        """Writes into each one's `draft_ids` how it may go on behind its last token, at most
        `draft_room` tokens, for which there are blocks. `rows`: how their tokens are chosen."""

    def forget(self, sequence: Sequence) -> None:
        """A sequence has ended."""
