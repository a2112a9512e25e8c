"""Keeps texts of clients from becoming control tokens: `<|im_start|>` in a message stays text."""

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

_MARK_CHARACTERS = 8
_PRIVATE_USE = 0xE000


class Prompt(str):
    """A rendered conversation, and where its tokenisation must not look across."""

    __slots__ = ("cuts",)
    cuts: tuple[int, ...]
    """Places in characters, in order: each splits what would be a special token."""

    @property
    def pieces(self) -> list[str]:
        """The text between the cuts."""
        ends = (*self.cuts, len(self))
        return [self[start:end] for start, end in zip((0, *self.cuts), ends, strict=True)]


class Literals:
    """Marks special tokens in what a client sent, and finds the marks after rendering.

    A template cannot be asked which part of its output came from whom, so the mark travels with the
    text: random characters of the private use area, which no filter of a template changes and no
    client can guess. Texts without special tokens are rendered and tokenised as ever.
    """

    def __init__(self, special_tokens: Iterable[str]) -> None:
        texts = sorted((text for text in special_tokens if len(text) > 1), key=len, reverse=True)
        # Looking ahead finds tokens that overlap, too.
        self._first = re.compile(f"(?=(?:{'|'.join(map(re.escape, texts))}))(.)") if texts else None
        codes = secrets.token_bytes(_MARK_CHARACTERS)
        self._mark = "".join(chr(_PRIVATE_USE + code) for code in codes)
        self._escaped = json.dumps(self._mark)[1:-1]

    def marked(self, value: Any) -> Any:
        """A JSON value whose texts, keys too, have marks behind the first character of special
        tokens."""
        if self._first is None:
            return value
        if isinstance(value, str):
            return self._first.sub(lambda found: found[1] + self._mark, value)
        if isinstance(value, Mapping):
            return {self.marked(key): self.marked(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.marked(item) for item in value]
        return value

    def prompt(self, text: str) -> str:
        """The rendered text without marks."""
        # A template may write JSON without any letter that is not of ASCII.
        first, *rest = text.replace(self._escaped, self._mark).split(self._mark)
        if not rest:
            return text
        cuts, size = [], len(first)
        for piece in rest:
            cuts.append(size)
            size += len(piece)
        prompt = Prompt(first + "".join(rest))
        prompt.cuts = tuple(cuts)
        return prompt
