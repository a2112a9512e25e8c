"""llguidance with one tokenizer: which tokens a grammar allows next. It compiles lazily."""

import json
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trivet.backends.api import Grammar, InvalidRequest
from trivet.backends.llm.sampling.call_grammars import lark, tagged
from trivet.backends.llm.sampling.json_schemas import closed_objects, probe, without_remarks

MAX_COST = 500_000
"""Steps that a token's mask may take (llguidance's step_max_items): grammars that explode end."""
_MAX_FORMATS = 256


class GrammarLibrary:
    """llguidance with one tokenizer."""

    def __init__(self, tokenizer_json: str, eos_token_id: int, vocabulary_size: int) -> None:
        import llguidance

        self._lib = llguidance
        self._vocabulary_size = vocabulary_size
        self._formats: dict[str, bool] = {}
        """Which the library knows, as far as they have been asked for."""
        added = json.loads(tokenizer_json).get("added_tokens") or ()
        self._tokenizer = llguidance.LLTokenizer(
            tokenizer_json, n_vocab=vocabulary_size, eos_token=eos_token_id
        )
        self._marks = {
            token["content"]: token["id"]
            for token in added
            if token["id"] < vocabulary_size and self._tokenizer.is_special_token(token["id"])
        }
        """What the library takes for tokens that are not spelled: more than tokenizers do."""

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
            return matcher.grammar_from_json_schema(self._schema(grammar.value, grammar.field))
        if grammar.kind == "json_object":
            return matcher.grammar_from_json_schema('{"type": "object"}')
        if grammar.kind == "regex":
            return matcher.grammar_from_regex(grammar.value)
        if grammar.kind == "choice":
            # Rules of a grammar would be followed one by one, and there may be thousands.
            choices = "|".join(re.escape(each) for each in json.loads(grammar.value))
            return matcher.grammar_from_regex(choices)
        if grammar.kind == "structural_tag":
            tags = json.loads(grammar.value)
            rules = tagged(tags, self._marks, lambda text: self._schema(text, grammar.field))
            return matcher.grammar_from_lark(rules)
        if grammar.kind == "calls":
            rules = lark(grammar.value, self._marks, lambda text: self._schema(text, grammar.field))
            return matcher.grammar_from_lark(rules)
        return matcher.grammar_from_lark(grammar.value)

    def _schema(self, text: str, field: str) -> str:
        """As the library is to read it. Raises InvalidRequest for one that has no way out."""
        try:
            schema = json.loads(text)
            for each in closed_objects(schema, schema):
                for pattern, names in each.overlaps():
                    self._check_way_out(pattern, names, field)
            return json.dumps(without_remarks(schema, self._knows_format))
        except (ValueError, RecursionError):
            return text  # the library says what is wrong with it

    def _knows_format(self, name: str) -> bool:
        known = self._formats.get(name)
        if known is None:
            form = json.dumps({"type": "string", "format": name})
            source = self._lib.LLMatcher.grammar_from_json_schema(form)
            known = not self._lib.LLMatcher(self._tokenizer, source).is_error()
            if len(self._formats) < _MAX_FORMATS:
                self._formats[name] = known
        return known

    def _check_way_out(self, pattern: str, names: list[str], field: str) -> None:
        """The library offers a comma behind the last of these names, although no other matches
        the pattern: white space alone may follow, for ever."""
        schema, begun = probe(pattern, names)
        source = self._lib.LLMatcher.grammar_from_json_schema(schema)
        matcher = self._lib.LLMatcher(self._tokenizer, source)
        matcher.consume_tokens(self._tokenizer.tokenize_str(begun))
        if matcher.is_error():
            return
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocabulary_size].nonzero()[0]
        if all(self._tokenizer.decode_bytes([int(token)]).isspace() for token in allowed):
            raise InvalidRequest(
                f"{field}: patternProperties {pattern[:64]!r} matches no name but "
                f"{', '.join(map(repr, names))[:256]}, which the schema has anyway: leave it out"
            )


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
