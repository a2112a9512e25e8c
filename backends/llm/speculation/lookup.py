"""Guesses from texts that are there: what followed the last time that the last tokens came.

Prompt lookup (Saxena, 2023) looks in the sequence itself; suffix decoding (Oliaro et al., 2024)
also in the outputs of others, whose agents and editors say much the same again and again.
"""

from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Sequence as Row
from dataclasses import dataclass, field

from trivet.backends.llm.sampling.sampler import RowState
from trivet.backends.llm.scheduling.sequence import Sequence

_INDEXED_AT_ONCE = 4096
"""Tokens of a long prompt, so that no step waits for it."""
_KEPT_TOKENS = 1 << 17
"""Of outputs that have ended; with their index a kilobyte each."""
Words = tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Text:
    """A sequence's tokens, and where the words of some tokens' length last ended in it."""

    token_ids: list[int]
    ends: dict[Words, int] = field(default_factory=dict)
    num_indexed: int = 0

    def index(self, sizes: range, most: int) -> Iterator[tuple[Words, int]]:
        """The words that end before the last token and were not there before: words, and the
        place behind them."""
        tokens = self.token_ids
        start = self.num_indexed
        # The words at the very end are those that are looked for.
        stop = min(len(tokens) - 1, start + most)
        for end in range(start + 1, stop + 1):
            for size in sizes:
                if size <= end:
                    yield tuple(tokens[end - size : end]), end
        self.num_indexed = max(stop, start)


class Lookup:
    """A Drafter. Owned by the engine's thread."""

    def __init__(
        self, shortest: int, longest: int, vocabulary_size: int, num_kept_outputs: int = 0
    ) -> None:
        """Words of `longest` to `shortest` tokens are looked for, the longest first.
        `num_kept_outputs`: that have ended, in which is looked, too."""
        self._sizes = range(shortest, longest + 1)
        self._vocabulary_size = vocabulary_size
        self._texts: dict[str, _Text] = {}
        self._others = _Others(num_kept_outputs, self._sizes) if num_kept_outputs else None

    def draft(self, sequences: Row[Sequence], _rows: Row[RowState], /) -> None:
        """See Drafter."""
        for sequence in sequences:
            text = self._texts.get(sequence.id)
            if text is None or text.token_ids is not sequence.token_ids:
                text = self._texts[sequence.id] = _Text(sequence.token_ids)
            text.ends.update(text.index(self._sizes, _INDEXED_AT_ONCE))
            sequence.draft_ids[:] = self._behind(sequence, text)

    def forget(self, sequence: Sequence) -> None:
        """See Drafter."""
        self._texts.pop(sequence.id, None)
        if self._others is not None:
            self._others.keep(sequence.cache_salt, sequence.output_ids)

    def _behind(self, sequence: Sequence, text: _Text) -> list[int]:
        tokens = text.token_ids
        for size in reversed(self._sizes):
            words = tuple(tokens[-size:])
            end = text.ends.get(words)
            if end is not None:
                return self._continued(tokens, end, sequence.draft_room)
            if self._others is not None:
                found = self._others.find(sequence.cache_salt, words)
                if found is not None:
                    other, end = found
                    return self._known(other[end : end + sequence.draft_room])
        return []

    def _continued(self, tokens: list[int], end: int, room: int) -> list[int]:
        """What a text that repeats itself from `end` on goes on with."""
        period = len(tokens) - end
        return self._known([tokens[end + place % period] for place in range(room)])

    def _known(self, token_ids: list[int]) -> list[int]:
        """Up to the first that is none of the model's words: images have such in prompts."""
        for place, token in enumerate(token_ids):
            if not 0 <= token < self._vocabulary_size:
                return token_ids[:place]
        return token_ids


class _Others:
    """The last outputs that have ended. One caller's never tell another's, nor an adapter's those
    of its base: what may not share a cache does not share these."""

    def __init__(self, most: int, sizes: range) -> None:
        self._most = most
        self._num_left = _KEPT_TOKENS
        self._sizes = sizes
        self._outputs: OrderedDict[int, tuple[str, list[int]]] = OrderedDict()
        self._num_outputs = 0
        self._ends: dict[tuple[str, Words], tuple[int, int]] = {}

    def keep(self, salt: str, token_ids: list[int]) -> None:
        """An output; as many of the oldest as it takes are dropped for it."""
        self._num_left -= len(token_ids)
        while self._outputs and (self._num_left < 0 or len(self._outputs) >= self._most):
            self._drop()
        if self._num_left < 0:
            self._num_left += len(token_ids)
            return
        number, self._num_outputs = self._num_outputs, self._num_outputs + 1
        self._outputs[number] = salt, token_ids
        for words, end in self._words(token_ids):
            self._ends[salt, words] = number, end

    def find(self, salt: str, words: Words) -> tuple[list[int], int] | None:
        """The last output in which they came, and the place behind them."""
        found = self._ends.get((salt, words))
        if found is None:
            return None
        number, end = found
        return self._outputs[number][1], end

    def _words(self, token_ids: list[int]) -> Iterator[tuple[Words, int]]:
        return _Text(token_ids).index(self._sizes, len(token_ids))

    def _drop(self) -> None:
        number, (salt, token_ids) = self._outputs.popitem(last=False)
        self._num_left += len(token_ids)
        for words, _ in self._words(token_ids):
            if self._ends.get((salt, words), (None,))[0] == number:
                del self._ends[salt, words]
