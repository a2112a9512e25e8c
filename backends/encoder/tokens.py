"""Texts to tokens by the folder's own tokenizer, cut only where the request says so."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from trivet.backends.api import InvalidRequest, LoadFailed
from trivet.backends.encoder.options import Options

BYTES_OF_TOKEN = 128
"""More than the longest token of any usual vocabulary has: of a text that may be cut, what lies
beyond so many for each token is not even tokenised."""


@dataclass(slots=True)
class Row:
    """One text, or pair, or list of ids, of a request."""

    request: int
    """Its index in the batch."""
    options: Options
    text: str = ""
    pair: str | None = None
    ids: Sequence[int] = ()
    type_ids: Sequence[int] | None = None
    """None: all 0."""
    encoding: Any = None
    """The tokenizer's own, where there was a text."""
    results: dict[str, Any] = field(default_factory=dict)
    """By output."""

    @property
    def input(self) -> str | tuple[str, str]:
        """As the tokenizer takes it."""
        text = self.options.prompt + self.text
        return text if self.pair is None else (text, self.pair)


class FolderTokenizer:
    """Used by the threads of all instances."""

    def __init__(self, path: Path, *, lowers: bool) -> None:
        """Raises LoadFailed."""
        text = path.read_text(encoding="utf-8")
        try:
            self._plain = Tokenizer.from_str(text)
            # Truncation is a tokenizer's state: cutting has one of its own.
            self._cutting = Tokenizer.from_str(text)
        except Exception as error:
            # The library raises nothing more special.
            raise LoadFailed(f"{path.name} cannot be read by tokenizers: {error}") from error
        for each in (self._plain, self._cutting):
            each.no_truncation()
            each.no_padding()
        self._is_cutting = threading.Lock()
        self._lowers = lowers
        self._prompt_sizes: dict[str, int] = {}

    def check(self, vocabulary_size: int) -> None:
        """Raises LoadFailed where it makes tokens that a model of that vocabulary has no vector
        for; 0: not known."""
        largest = max(self._plain.get_vocab(with_added_tokens=True).values(), default=0)
        if vocabulary_size and largest >= vocabulary_size:
            raise LoadFailed(
                f"the tokenizer knows {largest + 1} tokens, but the model only {vocabulary_size} "
                "(vocab_size in config.json): the folder's files do not belong together"
            )

    def encode(self, rows: Sequence[Row], *, with_places: bool) -> dict[int, InvalidRequest]:
        """Gives the rows their ids; by request, why one could not. `with_places`: where tokens are
        in the text will be asked for."""
        errors: dict[int, InvalidRequest] = {}
        for adds in (True, False):
            chosen = [row for row in rows if row.options.adds_special_tokens is adds]
            if chosen:
                self._encode(chosen, errors, adds=adds, with_places=with_places)
        return errors

    def _encode(
        self,
        rows: Sequence[Row],
        errors: dict[int, InvalidRequest],
        *,
        adds: bool,
        with_places: bool,
    ) -> None:
        for row in rows:
            self._prepare(row)
        plain = self._plain
        encode = plain.encode_batch if with_places else plain.encode_batch_fast
        encodings = encode([row.input for row in rows], add_special_tokens=adds)
        for row, encoding in zip(rows, encodings, strict=True):
            found = encoding
            if len(encoding) > row.options.max_tokens:
                try:
                    found = self._cut(row, len(encoding), adds=adds)
                except InvalidRequest as error:
                    errors[row.request] = error
                    continue
            row.encoding = found
            row.ids = found.ids
            row.type_ids = found.type_ids if row.pair is not None else None

    def _prepare(self, row: Row) -> None:
        if self._lowers:
            row.text = row.text.lower()
            row.pair = row.pair if row.pair is None else row.pair.lower()
        if row.options.truncate:
            most, is_left = row.options.max_tokens * BYTES_OF_TOKEN, row.options.direction == "left"
            row.text = row.text[-most:] if is_left else row.text[:most]
            if row.pair is not None:
                row.pair = row.pair[-most:] if is_left else row.pair[:most]

    def _cut(self, row: Row, size: int, *, adds: bool) -> Any:
        options = row.options
        if not options.truncate:
            raise InvalidRequest(
                f"the text has {size} tokens, and the model takes {options.max_tokens} at most "
                "(max_tokens); shorten it or ask for truncation"
            )
        num_special = self._cutting.num_special_tokens_to_add(row.pair is not None) if adds else 0
        if options.max_tokens <= num_special:
            raise InvalidRequest(
                f"max_tokens: {options.max_tokens} leave no room beside the {num_special} special "
                "tokens that the tokenizer adds"
            )
        text, pair = row.options.prompt + row.text, row.pair
        with self._is_cutting:
            self._cutting.enable_truncation(options.max_tokens, direction=options.direction)
            return self._cutting.encode(text, pair, add_special_tokens=adds)

    def prompt_size(self, prompt: str) -> int:
        """How many tokens at the beginning are the prompt's."""
        if prompt not in self._prompt_sizes:
            found = self._plain.encode(prompt)
            has_end = bool(found.special_tokens_mask) and found.special_tokens_mask[-1]
            self._prompt_sizes[prompt] = len(found.ids) - bool(has_end)
        return self._prompt_sizes[prompt]

    def document(self, row: Row) -> list[dict[str, Any]]:
        """The tokens of a row, with their places in characters of the text."""
        found = row.encoding
        parts = zip(found.ids, found.tokens, found.special_tokens_mask, found.offsets, strict=True)
        text = row.options.prompt + row.text
        return [
            {
                "id": token,
                "text": name if is_special else text[start:stop] or name,
                "special": bool(is_special),
                "start": None if is_special else start,
                "stop": None if is_special else stop,
            }
            for token, name, is_special, (start, stop) in parts
        ]

    def words(self, tokens: Sequence[str]) -> str:
        """Tokens as text."""
        decoder = self._plain.decoder
        return " ".join(tokens) if decoder is None else str(decoder.decode(list(tokens)))
