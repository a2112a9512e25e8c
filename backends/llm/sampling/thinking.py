"""How long a model may think: its thoughts are ended when they have had their tokens."""

from collections.abc import Sequence


class ThinkingBudget:
    """Follows one request's output. Owned by the engine's thread.

    Thoughts go from the opening mark, which may stand in the prompt, to the closing one; what was
    thought in the prompt counts. They are ended once, as in vLLM, and not looked for again.
    """

    def __init__(
        self,
        num_tokens: int,
        opening: Sequence[int],
        closing: Sequence[int],
        prompt_ids: Sequence[int],
    ) -> None:
        self._left = num_tokens
        self._opening = list(opening)
        self._closing = list(closing)
        self._longest = max(len(opening), len(closing))
        self._num_followed = 0
        self._num_closed = 0
        """Tokens of the closing mark that are out already, once it is forced."""
        self._is_over = False
        opened = _last(prompt_ids, self._opening)
        self._is_thinking = opened > _last(prompt_ids, self._closing)
        if self._is_thinking:
            self._left -= len(prompt_ids) - opened

    def forced(self, output_ids: list[int]) -> int | None:
        """The token that must come next; None: any may."""
        while self._num_followed < len(output_ids):
            self._num_followed += 1
            start = max(self._num_followed - self._longest, 0)
            self._follow(output_ids[start : self._num_followed])
        if self._is_over or not self._is_thinking or self._left > 0:
            return None
        return self._closing[self._num_closed]

    def _follow(self, end: list[int]) -> None:
        """One more token; `end`: it and as many before it as a mark has."""
        if self._is_over:
            return
        if not self._is_thinking:
            self._is_thinking = _ends(end, self._opening)
        elif self._left <= 0:
            self._num_closed += 1
            self._is_over = self._num_closed == len(self._closing)
        else:
            self._left -= 1
            self._is_over = _ends(end, self._closing)
            # The model may be about to close by itself.
            sizes = range(len(self._closing) - 1, 0, -1)
            self._num_closed = next((n for n in sizes if _ends(end, self._closing[:n])), 0)


def _ends(tokens: list[int], mark: list[int]) -> bool:
    return tokens[-len(mark) :] == mark


def _last(tokens: Sequence[int], mark: list[int]) -> int:
    """Behind the last place where the mark stands; 0: nowhere."""
    size = len(mark)
    places = range(len(tokens), size - 1, -1)
    return next((end for end in places if list(tokens[end - size : end]) == mark), 0)
