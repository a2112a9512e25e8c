"""Golden sets: files of cases, one JSON object a line.

{"id": "parcel", "messages": [{"role": "user", "content": "Where is it?"}],
 "options": {"temperature": 0}, "expect": [{"match": "regex", "pattern": "(?i)shipping"}]}
{"id": "two", "inputs": {"x": [2.0]}, "expect": {"match": "numeric", "output": "y", "value": [4.0]}}
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivet.server.evaluation.faults import SetFault
from trivet.server.evaluation.matchers import Matcher, parse_matcher

MAX_SET_BYTES = 256 * 1024 * 1024
MAX_ID_CHARACTERS = 200
_KEYS = {"id", "messages", "prompt", "inputs", "options", "expect"}
_WAYS = ("messages", "prompt", "inputs")


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is asked, and what is expected of the answer."""

    id: str
    set: str
    """Its set's name."""
    place: str
    """File and line."""
    digest: str
    """Of all that it says: another case of the same id is another one."""
    expect: tuple[Matcher, ...]
    messages: Sequence[Mapping[str, Any]] = ()
    prompt: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Values as nested lists, by input."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the request."""
    is_regression: bool = False
    """Whether it may not fail once it has passed, whatever the others do."""


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """A file of cases."""

    name: str
    path: Path
    digest: str
    cases: tuple[Case, ...]


def read_set(path: Path, *, is_regression: bool = False) -> GoldenSet:
    """Raises SetFault with file and line; no case is left out silently."""
    try:
        if path.stat().st_size > MAX_SET_BYTES:
            raise SetFault(f"{path}: a set has at most {MAX_SET_BYTES} bytes; split it")
        content = path.read_bytes()
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise SetFault(f"{path}: it is not UTF-8 text") from None
    except OSError as error:
        raise SetFault(f"{path}: it cannot be read: {error.strerror}") from None
    cases: dict[str, Case] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        case = _case(line, path, number, is_regression=is_regression)
        if case.id in cases:
            raise SetFault(f"{case.place}: case '{case.id}' is at {cases[case.id].place}, too")
        cases[case.id] = case
    if not cases:
        raise SetFault(f"{path}: it has no case; write one JSON object a line")
    digest = hashlib.sha256(content).hexdigest()
    return GoldenSet(path.stem, path, digest, tuple(cases.values()))


def _case(line: str, path: Path, number: int, *, is_regression: bool) -> Case:
    place = f"{path}:{number}"
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SetFault(f"{place}: it is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise SetFault(f"{place}: a case is an object with {', '.join(sorted(_KEYS))}")
    if unknown := sorted(given.keys() - _KEYS):
        raise SetFault(f"{place}: a case has no '{unknown[0][:64]}'; it has {', '.join(_KEYS)}")
    ways = [way for way in _WAYS if way in given]
    if len(ways) != 1:
        raise SetFault(f"{place}: give one of messages, prompt and inputs, got {ways or 'none'}")
    name = given.get("id", f"line {number}")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_ID_CHARACTERS:
        raise SetFault(f"{place}: 'id' is to be a text of 1 to {MAX_ID_CHARACTERS} characters")
    return Case(
        name,
        path.stem,
        place,
        hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest(),
        _expected(given.get("expect"), path, place),
        _messages(given, place),
        _text(given.get("prompt", ""), place),
        _table(given, "inputs", place),
        _table(given, "options", place),
        is_regression,
    )


def _expected(given: Any, path: Path, place: str) -> tuple[Matcher, ...]:
    found = given if isinstance(given, list) else [given]
    if given is None or not found:
        raise SetFault(f'{place}: it expects nothing; "expect" has at least one matcher')
    return tuple(parse_matcher(each, path.parent, place) for each in found)


def _messages(given: Mapping[str, Any], place: str) -> Sequence[Mapping[str, Any]]:
    messages = given.get("messages", [])
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise SetFault(f"{place}: 'messages' is to be a list as chats have it")
    if "messages" in given and not messages:
        raise SetFault(f"{place}: 'messages' is empty")
    return messages


def _text(given: Any, place: str) -> str:
    if not isinstance(given, str):
        raise SetFault(f"{place}: 'prompt' is to be a text")
    return given


def _table(given: Mapping[str, Any], key: str, place: str) -> Mapping[str, Any]:
    table = given.get(key, {})
    if not isinstance(table, dict):
        raise SetFault(f"{place}: '{key}' is to be an object of names and values")
    return table
