"""Grammars of calls (kind `calls`), and of text with tags in it (kind `structural_tag`), as
llguidance reads them: with the ids of special tokens. Pure.

A model writes a special token as one, never letter by letter, so the library must be told of it by
its number; all else is text.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Schema = Callable[[str], str]
"""A schema's text as the library is to read it."""


def lark(value: str, marks: Mapping[str, int], schema: Schema) -> str:
    """The rules. `marks`: special tokens by their texts. Raises ValueError."""
    parts: dict[str, dict[str, Any]] = json.loads(value)
    lines = [f"{name}: {body}" for name, body in parts["rules"].items()]
    lines += [f"{name}: {_spelled(text, marks)}" for name, text in parts["texts"].items()]
    for name, (closing, pattern) in parts["free"].items():
        lines += _free(name, closing, pattern, marks)
    for name, each in parts["schemas"].items():
        lines.append(f"{name}: %json {schema(json.dumps(each))}")
    return "\n".join(lines)


def tagged(tags: Sequence[Sequence[Any]], marks: Mapping[str, int], schema: Schema) -> str:
    """Text in which each trigger begins a tag. `tags`: trigger, begin, schema and end of each."""
    names = [f"tag-{number}" for number in range(len(tags))]
    lines = [f"start: ({' | '.join(names)})* rest", "rest: TEXT", r"TEXT: /(.|\n)*/"]
    for name, (trigger, begin, form, end) in zip(names, tags, strict=True):
        first = _pieces(trigger, marks)[0]
        begun, rest = "TEXT", begin
        if first not in marks:
            # What is spelled is looked for in the text, and ends it.
            begun, rest = f"{name}-begun", begin.removeprefix(first)
            lines.append(f"{begun}[lazy]: TEXT {_quoted(first)}")
        inner = f"%json {schema(json.dumps(form))}"
        lines.append(f"{name}: {begun} {_spelled(rest, marks)} {inner} {_spelled(end, marks)}")
    return "\n".join(lines)


def _spelled(text: str, marks: Mapping[str, int]) -> str:
    pieces = _pieces(text, marks)
    return " ".join(f"<[{marks[piece]}]>" if piece in marks else _quoted(piece) for piece in pieces)


def _free(name: str, closing: str, pattern: str, marks: Mapping[str, int]) -> list[str]:
    """Any text of the pattern up to the closing one, with it."""
    pieces = _pieces(closing, marks)
    number = next((number for number, piece in enumerate(pieces) if piece in marks), None)
    if number is None:
        return [f"{name}[suffix={_quoted(closing)}]: {_regex(pattern)}"]
    # A text in front of the token is of the same lexeme, for lexemes are as long as they can be.
    before = re.escape("".join(pieces[:number])).replace("\\\n", r"\n")
    rest = " ".join(_spelled(piece, marks) for piece in pieces[number:])
    return [f"{name}: {name}-text {rest}", f"{name}-text: {_regex(pattern + before)}"]


def _pieces(text: str, marks: Mapping[str, int]) -> list[str]:
    """The text, cut around its special tokens."""
    longest_first = sorted(marks, key=len, reverse=True)
    if not longest_first:
        return [text]
    found = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
    return [piece for piece in found if piece]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _regex(pattern: str) -> str:
    return "/" + pattern.replace("/", r"\/") + "/"
