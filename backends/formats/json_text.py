"""JSON in an output, passed on as it comes: knows depth and strings, and checks no more. Pure."""

import json
import re
from collections.abc import Container
from dataclasses import dataclass

from trivet.backends.formats.reader import Reader
from trivet.backends.formats.source import SPACE, Malformed, Reading, Sink, Source

_IN_STRING = re.compile(r'[^"\\]+')
_OUTSIDE = re.compile(r'[^"{}\[\]<]+')
_CLOSING = {"{": "}", "[": "]"}
_ARGUMENTS = ("arguments", "parameters")


def value(source: Source, sink: Sink, end: str = "") -> Reading[None]:
    """One value of any kind; the sink gets its characters. `end`: a mark before which an object or
    a list ends, even if brackets are missing, which the sink gets, too."""
    char = yield from source.peek()
    if char in "{[":
        yield from _nested(source, sink, end)
    elif char == '"':
        sink((yield from source.next()))
        yield from _rest_of_string(source, sink)
    else:
        yield from _word(source, sink)


def string(source: Source) -> Reading[str]:
    """A string's content. Raises Malformed for anything else."""
    yield from source.expect('"')
    parts = ['"']
    yield from _rest_of_string(source, parts.append)
    try:
        content = json.loads("".join(parts), strict=False)
    except ValueError:
        raise Malformed("a string") from None
    return str(content)


def _nested(source: Source, sink: Sink, end: str) -> Reading[None]:
    missing: list[str] = []
    while True:
        text = source.run(_OUTSIDE)
        if text:
            sink(text)
            continue
        if end and (yield from source.sees(end)):
            sink("".join(reversed(missing)))
            return
        char = yield from source.next()
        sink(char)
        if char == '"':
            yield from _rest_of_string(source, sink)
        elif char in _CLOSING:
            missing.append(_CLOSING[char])
        elif char in "]}":
            missing.pop()
            if not missing:
                return


def _rest_of_string(source: Source, sink: Sink) -> Reading[None]:
    while True:
        text = source.run(_IN_STRING)
        if text:
            sink(text)
            continue
        char = yield from source.next()
        sink(char)
        if char == '"':
            return
        if char == "\\":
            sink((yield from source.next()))


def _word(source: Source, sink: Sink) -> Reading[None]:
    """A number, true, false or null, which ends with what follows it."""
    if (yield from source.peek()) in ",}]:":
        raise Malformed("a value")
    while (yield from source.peek()) not in f",}}]{SPACE}":
        sink((yield from source.next()))


@dataclass(slots=True)
class _Call:
    """What is known of an object that is to be a call."""

    name: str = ""
    is_told: bool = False
    early: str | None = None
    """Arguments that came before the name."""
    known: Container[str] | None = None
    """The names that are believed; None: all."""
    name_key: str = "name"
    end: str = ""


def call_object(
    reader: Reader,
    *,
    needs_arguments: bool = False,
    known: Container[str] | None = None,
    name_key: str = "name",
    end: str = "",
) -> Reading[None]:
    """`{"name": ..., "arguments": ...}` in any order of keys; the arguments' text goes out as it
    comes once the name is known. `end`: a mark before which arguments end, whole or not. Raises
    Malformed for what is no call, or none of a known name."""
    source, call = reader.source, _Call(known=known, name_key=name_key, end=end)
    yield from source.expect("{")
    while True:
        yield from source.spaces()
        if (yield from source.has("}")):
            break
        key = yield from string(source)
        yield from source.spaces()
        yield from source.expect(":")
        yield from source.spaces()
        yield from _member(reader, call, key)
        yield from source.spaces()
        if not (yield from source.has(",")):
            yield from source.expect("}")
            break
    if not call.is_told:
        if not call.name or needs_arguments:
            raise Malformed("a call")
        _tell(reader, call, call.early or "{}")
    reader.settle()


def _member(reader: Reader, call: _Call, key: str) -> Reading[None]:
    if key == call.name_key:
        call.name = yield from string(reader.source)
        if not call.name or (call.known is not None and call.name not in call.known):
            raise Malformed("a name")
        if call.early is not None:
            _tell(reader, call, call.early)
    elif key in _ARGUMENTS:
        yield from _arguments(reader, call)
    else:
        yield from value(reader.source, lambda _: None)


def _arguments(reader: Reader, call: _Call) -> Reading[None]:
    source = reader.source
    is_object = (yield from source.peek()) in "{["
    if is_object and call.name and not call.is_told:
        _tell(reader, call, "")
        yield from value(source, reader.argue, call.end)
        return
    parts: list[str] = []
    yield from value(source, parts.append)
    # Some models write the arguments as a text with JSON in it.
    text = "".join(parts) if is_object else _text("".join(parts)) or "{}"
    if not call.name:
        call.early = text
    elif not call.is_told:
        _tell(reader, call, text)


def _tell(reader: Reader, call: _Call, arguments: str) -> None:
    call.is_told = True
    reader.tell(call.name)
    reader.argue(arguments)


def _text(word: str) -> str:
    """The text that a JSON string is; empty for what is none."""
    try:
        found = json.loads(word, strict=False)
    except ValueError:
        return ""
    return found if isinstance(found, str) else ""
