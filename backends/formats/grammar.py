"""Grammars of calls: rules for an output in a format's own words. Pure.

What a grammar library must know of a model's tokens is left to it: texts, which may hold special
tokens, and schemas are named in the rules, and defined beside them (kind `calls` of a Grammar).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As Python's json writes it, for that is what models have been trained on."""


MAX_VISITS = 2_000
"""Of schemas, for one request's rules: those that refer to each other can unfold without end."""
PARTS = ("rules", "texts", "free", "schemas")
"""Kinds of rules: bodies of names; texts; a text's end and its pattern before that; schemas."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that may be called."""

    name: str
    schema: Schema
    """Of its arguments."""


@dataclass(slots=True)
class Forcing:
    """What an output is to be: calls of these tools. Collects the rules."""

    tools: Sequence[Tool]
    is_single: bool
    """Whether there may be one call only."""
    template: str = ""
    """The model's chat template, where a format has several spellings."""
    _parts: dict[str, dict[str, Any]] = field(default_factory=lambda: {part: {} for part in PARTS})
    _names: dict[tuple[str, str], str] = field(default_factory=dict)
    _num_visits: float = 0

    def value(self, start: str) -> str:
        """The whole, for a Grammar of kind `calls`."""
        rules = {"start": start, **self._parts["rules"]}
        return json.dumps({**self._parts, "rules": rules})

    def may_visit(self, cost: float = 1) -> bool:
        """Whether a schema may be looked at, which counts; False: there have been too many."""
        self._num_visits += cost
        return self._num_visits <= MAX_VISITS

    # -- parts, each of which gives the name of a rule -----------------------------------------

    def text(self, text: str) -> str:
        """This text, in which special tokens are themselves."""
        return self._named("texts", text)

    def free(self, closing: str, pattern: str = "(?s:.*)") -> str:
        """Text up to the closing text, and that."""
        return self._named("free", [closing, pattern])

    def json(self, schema: Schema) -> str:
        """JSON of a schema."""
        return self._named("schemas", {**schema, "x-guidance": _SPACING})

    def rule(self, body: str) -> str:
        """A part of parts."""
        return self._named("rules", body)

    # -- what formats have alike ---------------------------------------------------------------

    def any_call(self, one: Callable[[Tool], str | None]) -> str | None:
        """A call of one of the tools; None where one cannot be written."""
        bodies = [one(tool) for tool in self.tools]
        written = [body for body in bodies if body is not None]
        return self.rule(" | ".join(written)) if len(written) == len(bodies) else None

    def calls(self, one: Callable[[Tool], str | None], between: str = "") -> str | None:
        """One call or, where there may be, several with a text between them."""
        call = self.any_call(one)
        if call is None or self.is_single:
            return call
        separator = self.text(between) if between else ""
        return f"{call} ({separator} {call})*"

    def members(self, bodies: Sequence[tuple[str, bool]], between: str) -> str:
        """Bodies in their order, of which those with False may be missing."""
        separator = self.text(between) if between else ""
        first: str = self.rule('""')
        later: str = first
        for body, is_needed in reversed(bodies):
            begun, gone_on = f"{body} {later}", f"{separator} {body} {later}"
            first, later = (
                self.rule(begun if is_needed else f"{begun} | {first}"),
                self.rule(gone_on if is_needed else f"{gone_on} | {later}"),
            )
        return first

    def _named(self, part: str, value: Any) -> str:
        """The name of a part; equal ones have one name."""
        key = (part, json.dumps(value))
        name = self._names.get(key)
        if name is None:
            known = self._parts[part]
            name = self._names[key] = f"{part}-{len(known)}"
            known[name] = value
        return name
