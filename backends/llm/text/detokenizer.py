"""Tokens to text as they come: no half character and no part of a stop text ever gets out. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Decoder(Protocol):
    """A tokenizer's way back."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of token ids."""


class Detokenizer:
    """Decodes one output incrementally.

    A token's text can depend on the token before it, and a character can lie in several tokens. So
    the text is decoded from a few tokens back, and the difference is given out once it does not end
    in an incomplete character (the way of Hugging Face's text-generation-inference and of vLLM).
    """

    def __init__(self, decoder: Decoder, *, skip_special_tokens: bool) -> None:
        self._decode: Callable[[list[int]], str] = lambda ids: decoder.decode(
            ids, skip_special_tokens=skip_special_tokens
        )
        self._ids: list[int] = []
        self._prefix_start = 0
        self._read_end = 0

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that is certain with these tokens."""
        self._ids += token_ids
        return self._advance(is_last=False)

    def flush(self) -> str:
        """What was held back, an incomplete character as U+FFFD."""
        return self._advance(is_last=True)

    def _advance(self, *, is_last: bool) -> str:
        before = self._decode(self._ids[self._prefix_start : self._read_end])
        now = self._decode(self._ids[self._prefix_start :])
        if len(now) <= len(before) or (now.endswith(REPLACEMENT) and not is_last):
            return ""
        self._prefix_start, self._read_end = self._read_end, len(self._ids)
        return now[len(before) :]


@dataclass(frozen=True, slots=True)
class StopHit:
    """A stop text was found."""

    stop: str


class StopMatcher:
    """Finds stop texts in a stream and holds back what might become one."""

    def __init__(self, stops: Sequence[str], *, include: bool) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._include = include
        self._held = ""
        self._num_barred = 0
        """Of the held characters: those in which no stop text may end."""

    def push(self, text: str, *, is_barred: bool = False) -> tuple[str, StopHit | None]:
        """What may go out now, and the stop text if one is complete. `is_barred`: none may end
        in this text yet, though one may begin in it."""
        if not self._stops:
            return text, None
        held = self._held + text
        if is_barred:
            self._num_barred = len(held)
        elif hit := self._found(held):
            place, stop = hit
            self._held = ""
            return held[: place + (len(stop) if self._include else 0)], StopHit(stop)
        keep = max(_overlap(held, stop) for stop in self._stops)
        cut = len(held) - keep
        self._held = held[cut:]
        self._num_barred = max(self._num_barred - cut, 0)
        return held[:cut], None

    def _found(self, held: str) -> tuple[int, str] | None:
        """The stop text that ends first, and its place."""
        found = [
            (place, stop)
            for stop in self._stops
            if (place := held.find(stop, max(self._num_barred - len(stop) + 1, 0))) >= 0
        ]
        return min(found, key=lambda each: (each[0] + len(each[1]), each[0]), default=None)

    def flush(self) -> str:
        """What was held back: the output has ended."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How long an end of `text` could be the beginning of `stop`."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
