"""Text to token ids and back, by the `tokenizers` library. Safe in any thread."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers

from trivet.backends.api import Token
from trivet.backends.llm.text.literal import Prompt
from trivet.backends.llm.text.tokenizer_files import TokenizerFiles, read_tokenizer
from trivet.backends.llm.text.within_text import within_text


class Tokenizer:
    """One model's tokenizer."""

    def __init__(self, inner: "tokenizers.Tokenizer", eos_token_ids: tuple[int, ...]) -> None:
        self._inner = inner
        self._within = within_text(inner)
        self.within_text = WithinText(self._within)
        """For outputs, which go on a prompt."""
        self.eos_token_ids = eos_token_ids
        added = inner.get_added_tokens_decoder()
        self._added = frozenset(added)
        special = {index: token.content for index, token in added.items() if token.special}
        self._special = frozenset(special)
        self.special_texts = tuple(special.values())
        """The texts of the model's own marks."""
        vocabulary = inner.get_vocab(with_added_tokens=True)
        self.longest_token = max(map(len, vocabulary), default=1)
        """In characters, or in bytes where its tokens are bytes."""
        self.num_ids = max(vocabulary.values(), default=-1) + 1
        """Its largest id, and one."""

    @classmethod
    def from_files(cls, files: TokenizerFiles) -> "Tokenizer":
        """Raises LoadFailed when the file is none."""
        inner = read_tokenizer(files.json)
        inner.no_truncation()
        inner.no_padding()
        return cls(inner, files.eos_token_ids)

    def words(self) -> dict[str, int]:
        """The token of each word, as the file has them."""
        words: dict[str, int] = self._inner.get_vocab(with_added_tokens=True)
        return words

    def difference(self, other: "Tokenizer") -> str:
        """The first word that another vocabulary has otherwise; empty if there is none."""
        ours, theirs = self.words(), other.words()
        for word, token in sorted(theirs.items(), key=lambda item: item[1]):
            if ours.get(word) != token:
                return f"{word!r} is {token} there and {ours.get(word, 'no token')} here"
        return ""

    def to_json(self) -> str:
        """In the form of tokenizer.json."""
        text: str = self._inner.to_str()
        return text

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The token ids of a text; what looks like a special token in it is one, unless a cut of
        a `Prompt` lies in it."""
        ids: list[int] = self._encoded(text, add_special_tokens=add_special_tokens).ids
        return ids

    def tokenize(self, text: str, *, add_special_tokens: bool) -> list[Token]:
        """Tokens with the places of their characters."""
        found = self._encoded(text, add_special_tokens=add_special_tokens)
        return [
            Token(token, text[start:stop], start, stop)
            for token, (start, stop) in zip(found.ids, found.offsets, strict=True)
        ]

    def _encoded(self, text: str, *, add_special_tokens: bool) -> Any:
        if not isinstance(text, Prompt):
            return self._inner.encode(text, add_special_tokens=add_special_tokens)
        first, *others = text.pieces
        parts = [self._inner.encode(first, add_special_tokens=False)]
        for piece in others:
            parts += self._going_on(piece)
        whole = tokenizers.Encoding.merge(parts, growing_offsets=True)
        return self._inner.post_process(whole, add_special_tokens=add_special_tokens)

    def _going_on(self, text: str) -> list[Any]:
        """The parts of a text that goes on another: up to a mark it has no space in front."""
        found = self._within.encode(text, add_special_tokens=False)
        if self._within is self._inner:
            return [found]
        starts = [
            start
            for token, (start, _) in zip(found.ids, found.offsets, strict=True)
            if token in self._added
        ]
        if not starts:
            return [found]
        pieces = text[: starts[0]], text[starts[0] :]
        return [
            each.encode(piece, add_special_tokens=False)
            for each, piece in zip((self._within, self._inner), pieces, strict=True)
        ]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of token ids; incomplete characters become U+FFFD."""
        text: str = self._inner.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        return text

    def spellings(self, token_ids: Sequence[int]) -> list[str]:
        """Token ids as the vocabulary has them; empty for one that is not there."""
        return [self._inner.id_to_token(token) or "" for token in token_ids]

    def is_special(self, token: int) -> bool:
        """Whether a token is one of the model's own marks."""
        return token in self._special


@dataclass(frozen=True, slots=True)
class WithinText:
    """The way back from tokens that go on a text: a space in front of them is their own."""

    _inner: Any

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of token ids; incomplete characters become U+FFFD."""
        text: str = self._inner.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        return text
