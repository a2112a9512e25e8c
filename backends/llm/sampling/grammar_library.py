"""llguidance with one tokenizer: which tokens a grammar allows next. It compiles lazily."""

import json
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trivet.backends.api import Grammar, InvalidRequest

MAX_COST = 500_000
"""Steps that a token's mask may take (llguidance's step_max_items): grammars that explode end."""


class GrammarLibrary:
    """llguidance with one tokenizer."""

    def __init__(self, tokenizer_json: str, eos_token_id: int, vocabulary_size: int) -> None:
        import llguidance

        self._lib = llguidance
        self._vocabulary_size = vocabulary_size
        added = json.loads(tokenizer_json).get("added_tokens") or ()
        self._special_texts = {token["content"] for token in added if token.get("special")}
        self._tokenizer = llguidance.LLTokenizer(
            tokenizer_json, n_vocab=vocabulary_size, eos_token=eos_token_id
        )

    def constraint(self, grammar: Grammar) -> "GrammarConstraint":
        """The grammar at an output's beginning, whose first tokens are found already. Raises
        InvalidRequest when it is wrong or too large."""
        limits = self._lib.LLParserLimits(step_max_items=MAX_COST)
        try:
            source = self._source(grammar)
            matcher = self._lib.LLMatcher(self._tokenizer, source, limits=limits)
        except (ValueError, TypeError) as error:
            raise _wrong(grammar, str(error)) from None
        if matcher.is_error():
            raise _wrong(grammar, matcher.get_error())
        return GrammarConstraint(matcher, self._vocabulary_size, grammar.field)

    def _source(self, grammar: Grammar) -> Any:
        matcher = self._lib.LLMatcher
        if grammar.kind == "json_schema":
            return matcher.grammar_from_json_schema(grammar.value)
        if grammar.kind == "json_object":
            return matcher.grammar_from_json_schema('{"type": "object"}')
        if grammar.kind == "regex":
            return matcher.grammar_from_regex(grammar.value)
        if grammar.kind == "choice":
            # Rules of a grammar would be followed one by one, and there may be thousands.
            choices = "|".join(re.escape(each) for each in json.loads(grammar.value))
            return matcher.grammar_from_regex(choices)
        if grammar.kind == "structural_tag":
            tags = [
                self._lib.StructTag(trigger=trigger, begin=begin, grammar=schema, end=end)
                for trigger, begin, schema, end in json.loads(grammar.value)
            ]
            # Marks that the model has tokens for are not spelled.
            is_special = any(tag.trigger in self._special_texts for tag in tags)
            return self._lib.StructTag.to_grammar(tags, assume_special=is_special)
        return matcher.grammar_from_lark(grammar.value)


class GrammarConstraint:
    """One output's way through its grammar."""

    def __init__(self, matcher: Any, vocabulary_size: int, field: str) -> None:
        self._matcher = matcher
        self._field = field
        self._vocabulary_size = vocabulary_size
        # What comes first may take as long as compiling: it is found with it.
        self._mask: Tensor | None = self._allowed()

    def mask(self) -> Tensor:
        """Allowed tokens, bool [vocabulary]. Raises InvalidRequest when it has grown too large."""
        if self._mask is None:
            self._mask = self._allowed()
        return self._mask

    def _allowed(self) -> Tensor:
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            reason = _first_line(self._matcher.get_error())
            raise InvalidRequest(f"{self._field}: the grammar cannot be followed further: {reason}")
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocabulary_size]
        return torch.from_numpy(allowed.astype(np.bool_))

    def accept(self, token: int) -> None:
        """The token has been chosen."""
        self._mask = None
        self._matcher.consume_token(token)


def _wrong(grammar: Grammar, text: str) -> InvalidRequest:
    # What follows these words is the library's own state.
    told = re.split(r"<backtrace>|<state>", text)[0].strip()[:500]
    if told.startswith("panic:"):
        told = "it is larger than can be compiled"
    return InvalidRequest(f"{grammar.field}: the grammar is wrong: {told}")


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:500]
