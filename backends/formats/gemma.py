"""Calls with arguments whose texts stand between marks: FunctionGemma and Gemma 4."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from trivet.backends.formats.arguments import (
    followed,
    forced_members,
    is_nameable,
    json_value,
    text_value,
)
from trivet.backends.formats.format import ToolFormat
from trivet.backends.formats.grammar import Forcing, Schema, Tool
from trivet.backends.formats.named_json import until_mark
from trivet.backends.formats.reader import Reader, Tools
from trivet.backends.formats.source import Ended, Malformed, Reading, Sink
from trivet.backends.formats.values import TEXT, inside_quotes, kinds_of, text_as_json

MAX_DEPTH = 64
_MAX_FORCED_DEPTH = 8
_WORD = re.compile(r"[^,{}\[\]\s<]+")
_SCALARS = frozenset({"boolean", "integer", "null", "number"})
_CLOSING = {"[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Marks:
    """What stands around a call and around a text in it."""

    opening: str
    closing: str
    quote: str


class GemmaCalls(Reader):
    """Reads `call:f{key:value,...}` between marks."""

    def __init__(self, marks: Marks, tools: Tools) -> None:
        super().__init__(tools)
        self._marks = marks

    def read(self) -> Reading[None]:
        """See Reader."""
        while True:
            mark = yield from self.source.until((self._marks.opening,), self.show)
            yield from self.attempt(mark, self._call())

    def _call(self) -> Reading[None]:
        source = self.source
        yield from source.expect("call:")
        name = (yield from until_mark(self, "{")).strip()
        if not name:
            raise Malformed("a name")
        self.tell(name)
        yield from self._members("{", self.argue, 0)
        self.settle()
        yield from source.spaces()
        yield from source.expect(self._marks.closing)
        self.settle()

    def _members(self, opening: str, sink: Sink, depth: int) -> Reading[None]:
        """What is behind an opening bracket."""
        source = self.source
        sink(opening)
        is_first = True
        while True:
            yield from source.spaces()
            if (yield from source.has(_CLOSING[opening])):
                sink(_CLOSING[opening])
                return
            sink("" if is_first else ", ")
            is_first = False
            if opening == "{":
                key = (yield from until_mark(self, ":")).strip()
                sink(json.dumps(key.replace(self._marks.quote, ""), ensure_ascii=False) + ": ")
            yield from self._value(sink, depth + 1)
            yield from source.spaces()
            if (yield from source.peek()) != _CLOSING[opening]:
                yield from source.expect(",")

    def _value(self, sink: Sink, depth: int) -> Reading[None]:
        source = self.source
        yield from source.spaces()
        if depth > MAX_DEPTH:
            raise Malformed("a value that is not nested so deep")
        char = yield from source.peek()
        if char in _CLOSING:
            yield from source.next()
            yield from self._members(char, sink, depth)
        elif (yield from source.has(self._marks.quote)):
            sink('"')
            yield from source.until((self._marks.quote,), lambda text: sink(inside_quotes(text)))
            sink('"')
        else:
            yield from self._word(sink)

    def _word(self, sink: Sink) -> Reading[None]:
        parts: list[str] = []
        try:
            while True:
                yield from self.source.peek()
                text = self.source.run(_WORD)
                if not text:
                    break
                parts.append(text)
        except Ended:
            sink("".join(parts))
            raise
        if not parts:
            raise Malformed("a value")
        sink(text_as_json("".join(parts), _SCALARS))


def _force(marks: Marks, forcing: Forcing) -> str | None:
    def one(tool: Tool) -> str | None:
        inner = _members(marks, forcing, tool.schema, tool.schema, 0) if is_nameable(tool) else None
        begun = forcing.text(f"{marks.opening}call:{tool.name}{{")
        return inner and f"{begun} {inner} {forcing.text('}' + marks.closing)}"

    return forcing.calls(one)


def _members(
    marks: Marks, forcing: Forcing, schema: Schema, root: Schema, depth: int
) -> str | None:
    def one(name: str, inner: Schema, _root: Schema) -> str | None:
        value = _value(marks, forcing, inner, root, depth + 1)
        return value and f"{forcing.text(f'{name}:')} {value}"

    return forced_members(forcing, schema, one, ",")


def _value(marks: Marks, forcing: Forcing, schema: Schema, root: Schema, depth: int) -> str | None:
    if depth > _MAX_FORCED_DEPTH or not forcing.may_visit():
        return None
    schema = followed(schema, root)
    kinds = kinds_of(schema, root)
    if kinds == TEXT:
        inner = text_value(forcing, schema, marks.quote)
        return inner and f"{forcing.text(marks.quote)} {inner}"
    if kinds and kinds <= _SCALARS:
        return json_value(forcing, schema, root)
    if kinds == {"object"}:
        members = _members(marks, forcing, schema, root, depth)
        return members and f"{forcing.text('{')} {members} {forcing.text('}')}"
    items = schema.get("items")
    if kinds != {"array"} or not isinstance(items, Mapping):
        return None
    if not schema.keys() <= {"type", "title", "description", "items", "default"}:
        return None
    each = _value(marks, forcing, items, root, depth + 1)
    comma = forcing.text(",")
    return each and f"{forcing.text('[')} ({each} ({comma} {each})*)? {forcing.text(']')}"


def _format(name: str, marks: Marks, used_by: str) -> ToolFormat:
    shown = f"{marks.opening}call:f{{a:{marks.quote}x{marks.quote},b:1}}{marks.closing}"
    reader, force = partial(GemmaCalls, marks), partial(_force, marks)
    in_template = ((f"{marks.opening}call:",), (f"{marks.opening}", marks.quote))
    return ToolFormat(name, shown, used_by, reader, force, in_template)


FUNCTION_GEMMA = _format(
    "functiongemma",
    Marks("<start_function_call>", "<end_function_call>", "<escape>"),
    "FunctionGemma",
)
GEMMA4 = _format("gemma4", Marks("<|tool_call>", "<tool_call|>", '<|"|>'), "Gemma 4")
