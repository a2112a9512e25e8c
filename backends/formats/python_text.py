"""Python's literals in an output, as JSON while they come. Pure."""

import json
import re

from trivet.backends.formats.source import Ended, Malformed, Reading, Sink, Source

MAX_DEPTH = 64
_IN_STRING = re.compile(r"""[^"'\\\n]+""")
_WORD = re.compile(r"[\w.+-]+")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_WORDS = {"True": "true", "False": "false", "None": "null"}
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0"}
_CODES = {"x": 2, "u": 4, "U": 8}


def literal(source: Source, sink: Sink, depth: int = 0) -> Reading[None]:
    """One literal; JSON's own words are understood, too. Raises Malformed."""
    char = yield from source.peek()
    if depth > MAX_DEPTH:
        raise Malformed("a literal that is not nested so deep")
    if char in "\"'":
        yield from _string(source, sink)
    elif char in _CLOSING:
        yield from _collection(source, sink, depth)
    else:
        yield from _word(source, sink)


def as_json(text: str) -> str:
    """The JSON of a whole literal; empty for what is none."""
    source, parts = Source(), list[str]()
    source.push(text)
    source.end()
    try:
        for _ in literal(source, parts.append):
            pass
    except (Ended, Malformed):
        return ""
    try:
        next(source.peek())
    except Ended:
        return "".join(parts)
    except StopIteration:
        pass
    return ""


def _collection(source: Source, sink: Sink, depth: int) -> Reading[None]:
    opening = yield from source.next()
    is_dict = opening == "{"
    sink("{" if is_dict else "[")
    is_first = True
    while True:
        yield from source.spaces()
        if (yield from source.has(_CLOSING[opening])):
            sink("}" if is_dict else "]")
            return
        if not is_first:
            sink(", ")
        is_first = False
        if is_dict:
            yield from _key(source, sink)
        yield from literal(source, sink, depth + 1)
        yield from source.spaces()
        if (yield from source.peek()) != _CLOSING[opening]:
            yield from source.expect(",")


def _key(source: Source, sink: Sink) -> Reading[None]:
    parts: list[str] = []
    try:
        yield from literal(source, parts.append, MAX_DEPTH)
    except (Ended, Malformed):
        sink("".join(parts))
        raise
    key = "".join(parts)
    # JSON's keys are strings.
    sink(key if key.startswith('"') else json.dumps(key))
    yield from source.spaces()
    yield from source.expect(":")
    yield from source.spaces()
    sink(": ")


def _string(source: Source, sink: Sink) -> Reading[None]:
    quote = yield from source.next()
    sink('"')
    while True:
        text = source.run(_IN_STRING)
        if text:
            sink(_inside(text))
            continue
        char = yield from source.next()
        if char == quote:
            break
        if char == "\\":
            yield from _escape(source, sink)
        else:
            sink(_inside(char))
    sink('"')


def _escape(source: Source, sink: Sink) -> Reading[None]:
    char = yield from source.next()
    if char in _CODES:
        digits = ""
        for _ in range(_CODES[char]):
            digits += yield from source.next()
        try:
            sink(_code(char, digits))
        except (ValueError, OverflowError):
            sink(_inside(f"\\{char}{digits}"))
    elif char in _ESCAPES:
        sink(_inside(_ESCAPES[char]))
    elif char in "\\'\"":
        sink(_inside(char))
    elif char != "\n":
        # Python keeps the backslash of what is no escape.
        sink(_inside(f"\\{char}"))


def _code(kind: str, digits: str) -> str:
    """Halves of characters that JSON writes in two stay as they are written."""
    number = int(digits, 16)
    return f"\\u{digits}" if kind == "u" and 0xD800 <= number < 0xE000 else _inside(chr(number))


def _inside(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _word(source: Source, sink: Sink) -> Reading[None]:
    """A number, True, False or None."""
    word = ""
    try:
        while True:
            yield from source.peek()
            text = source.run(_WORD)
            if not text:
                break
            word += text
    except Ended:
        sink(_WORDS.get(word, word))
        raise
    if word not in _WORDS and word not in _WORDS.values() and not _NUMBER.fullmatch(word):
        source.leave(word)
        raise Malformed("a literal")
    sink(_WORDS.get(word, word))
