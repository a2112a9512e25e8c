"""`prompt.toml` and the files that it names, read and checked by themselves: no other model is
looked at here.

base = "qwen"                      # or "qwen@stable"; base_version = 3 names one of its versions
system = "You sort letters of {{ company }}."
template = "Which desk gets this letter?\\n\\n{{ letter }}"
input = "letter"                   # the variable that takes what the client says
few_shot = "letters.jsonl"         # lines of {"variables": {"letter": ...}, "answer": ...}
response_schema = "desk.json"      # or tools = "tools.json"

[variables]
letter = {}
company = { default = "Example Ltd" }

[sampling]
temperature = 0.0
max_tokens = 40
stop = ["\\n\\n"]

[[examples]]
variables = { letter = "Where is my parcel?" }
rendered = "Which desk gets this letter?\\n\\nWhere is my parcel?"
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from trivet.backends.api import InvalidConfig, ModelFiles
from trivet.backends.prompt.about import PROMPT_FILE

Value = str | int | float | bool
"""Of a variable."""
Values = Mapping[str, Value]
NOTHING_GIVEN: Values = MappingProxyType({})
KEYS = (
    "base", "base_version", "examples", "few_shot", "input", "response_schema", "sampling",
    "system", "template", "tools", "variables",
)  # fmt: skip
USUAL_INPUT = "input"
SAMPLING: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_k": (0, 2**31 - 1),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 100),
    "max_tokens": (1, 2**31 - 1),
}
"""What may be recommended, and from where to where."""
WHOLE_NUMBERS = ("top_k", "max_tokens")
MAX_FILE_BYTES = 4 * 1024 * 1024
"""Of each file: all of it is read for every load."""
MAX_STOPS = 16
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Shot:
    """An exchange that stands before the client's."""

    variables: Values
    answer: str


@dataclass(frozen=True, slots=True)
class Example:
    """Values that the template must render."""

    variables: Values
    rendered: str | None = None
    """What comes of them, where the file says."""


@dataclass(frozen=True, slots=True)
class PromptFile:
    """What a version of a prompt consists of."""

    base: str
    base_version: int | None = None
    system: str = ""
    template: str = ""
    """Of what a user says; empty: as it is."""
    input: str = USUAL_INPUT
    variables: Mapping[str, Value | None] = field(default_factory=dict)
    """With their defaults; None: must be given."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    response_schema: Mapping[str, Any] | None = None
    shots: tuple[Shot, ...] = ()
    examples: tuple[Example, ...] = ()


def read_prompt_file(files: ModelFiles) -> PromptFile:
    """Raises InvalidConfig, OSError."""
    given = _toml(_text(files, PROMPT_FILE))
    for key in given:
        if key not in KEYS:
            raise _fault(f"it has no key '{key[:64]}'{_near(key, KEYS)}")
    read = _Reader(given, files)
    base = read.text("base")
    if not base:
        raise _fault('it names no base; write base = "NAME", a model that generates text')
    variables = read.variables()
    tools, schema = read.tools(), read.schema()
    if tools and schema is not None:
        raise _fault("it has tools and a response_schema; an answer is one or the other")
    sampling, stop = read.sampling()
    return PromptFile(
        base,
        read.version(),
        read.text("system"),
        read.text("template"),
        read.input(variables),
        variables,
        sampling,
        stop,
        tools,
        schema,
        read.shots(variables),
        read.examples(variables),
    )


def _fault(text: str, file: str = PROMPT_FILE) -> InvalidConfig:
    return InvalidConfig(f"{file}: {text}")


def _near(name: str, known: Sequence[str]) -> str:
    found = get_close_matches(name, known, n=1)
    return f"; did you mean '{found[0]}'?" if found else f"; it may have {', '.join(known)}"


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _fault(f"it is no TOML: {error}") from None


def _text(files: ModelFiles, name: str) -> str:
    path = files.inside(files.version_dir, name)
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise _fault(f"it has {size} bytes; at most {MAX_FILE_BYTES} are read", name)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise _fault("it is not UTF-8 text", name) from None


class _Reader:
    """The keys of a file, one by one. Each method raises InvalidConfig."""

    def __init__(self, given: Mapping[str, Any], files: ModelFiles) -> None:
        self._given = given
        self._files = files

    def text(self, key: str) -> str:
        given = self._given.get(key, "")
        if not isinstance(given, str):
            raise _fault(f"'{key}' is to be a text, got {_shown(given)}")
        return given

    def version(self) -> int | None:
        given = self._given.get("base_version")
        if given is None or (type(given) is int and given >= 1):
            return given
        raise _fault(f"'base_version' is to be the number of a version, got {_shown(given)}")

    def variables(self) -> dict[str, Value | None]:
        found: dict[str, Value | None] = {}
        for name, given in self._table("variables").items():
            if not _NAME.fullmatch(name):
                raise _fault(f"variable '{name[:64]}' is no name: letters, digits and _")
            if not isinstance(given, dict) or given.keys() - {"default"}:
                raise _fault(
                    f"variable '{name}' is to be {{}}, which must be given, or "
                    f'{{ default = "..." }}, got {_shown(given)}'
                )
            if "default" in given and not isinstance(given["default"], Value):
                raise _fault(f"the default of variable '{name}' is to be a text or a number")
            found[name] = given.get("default")
        return found

    def input(self, variables: dict[str, Value | None]) -> str:
        name = self.text("input") or USUAL_INPUT
        if name not in variables:
            if "input" in self._given:
                raise _fault(
                    f"'input' is '{name[:64]}', which is no variable{_near(name, [*variables])}"
                )
            variables[name] = None
        return name

    def sampling(self) -> tuple[dict[str, float], tuple[str, ...]]:
        found: dict[str, float] = {}
        stop: tuple[str, ...] = ()
        for name, given in self._table("sampling").items():
            if name == "stop":
                stop = _stops(given)
            elif name in SAMPLING:
                found[name] = _number(name, given)
            else:
                raise _fault(f"[sampling] has no '{name[:64]}'{_near(name, [*SAMPLING, 'stop'])}")
        return found, stop

    def tools(self) -> tuple[Mapping[str, Any], ...]:
        given = self._object("tools")
        if given is None:
            return ()
        if not isinstance(given, list) or not all(map(_is_tool, given)):
            raise _fault(
                "'tools' is to be a list of tools as OpenAI's API has them: "
                '{"type": "function", "function": {"name": ..., "parameters": {...}}}'
            )
        return tuple(given)

    def schema(self) -> Mapping[str, Any] | None:
        given = self._object("response_schema")
        if given is not None and not isinstance(given, dict):
            raise _fault("'response_schema' is to be a JSON schema, an object")
        return given

    def shots(self, variables: Mapping[str, Value | None]) -> tuple[Shot, ...]:
        name = self.text("few_shot")
        if not name:
            return ()
        found = []
        for number, line in enumerate(_text(self._files, name).splitlines(), 1):
            if not line.strip():
                continue
            place = f"{name}:{number}"
            given = _json(line, place)
            if not isinstance(given, dict) or given.keys() != {"variables", "answer"}:
                raise _fault('it is to be {"variables": {...}, "answer": "..."}', place)
            if not isinstance(given["answer"], str):
                raise _fault(f"'answer' is to be a text, got {_shown(given['answer'])}", place)
            found.append(Shot(_values(given["variables"], variables, place), given["answer"]))
        return tuple(found)

    def examples(self, variables: Mapping[str, Value | None]) -> tuple[Example, ...]:
        given = self._given.get("examples", [])
        if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
            raise _fault("examples are tables, [[examples]]")
        found = []
        for number, each in enumerate(given, 1):
            place = f"{PROMPT_FILE}: example {number}"
            if each.keys() - {"variables", "rendered"}:
                raise InvalidConfig(f"{place} has more than 'variables' and 'rendered'")
            rendered = each.get("rendered")
            if rendered is not None and not isinstance(rendered, str):
                raise InvalidConfig(f"{place}: 'rendered' is to be a text")
            found.append(Example(_values(each.get("variables", {}), variables, place), rendered))
        return tuple(found)

    def _table(self, key: str) -> Mapping[str, Any]:
        given = self._given.get(key, {})
        if not isinstance(given, dict):
            raise _fault(f"'{key}' is to be a table, [{key}], got {_shown(given)}")
        return given

    def _object(self, key: str) -> Any:
        """What stands there, or in the JSON file that is named there."""
        given = self._given.get(key)
        return _json(_text(self._files, given), given) if isinstance(given, str) else given


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _fault(f"it is no JSON: {error}", place) from None


def _values(given: object, variables: Mapping[str, Value | None], place: str) -> Values:
    if not isinstance(given, dict):
        raise InvalidConfig(f"{place}: 'variables' is to be a table of names and values")
    for name, value in given.items():
        if name not in variables:
            raise InvalidConfig(f"{place}: no variable '{name[:64]}'{_near(name, [*variables])}")
        if not isinstance(value, Value):
            raise InvalidConfig(f"{place}: '{name}' is to be a text or a number")
    return given


def _stops(given: object) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else given
    if isinstance(stops, list) and len(stops) <= MAX_STOPS:
        texts = tuple(stop for stop in stops if isinstance(stop, str) and stop)
        if len(texts) == len(stops):
            return texts
    raise _fault(f"sampling.stop is to be at most {MAX_STOPS} texts, got {_shown(given)}")


def _number(name: str, given: object) -> float:
    least, most = SAMPLING[name]
    kinds = int if name in WHOLE_NUMBERS else int | float
    is_number = isinstance(given, kinds) and not isinstance(given, bool)
    if is_number and isinstance(given, int | float) and least <= given <= most:
        return given
    raise _fault(f"sampling.{name} is to be from {least} to {most}, got {_shown(given)}")


def _is_tool(given: object) -> bool:
    """Whether a chat may have it as one of its tools."""
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(given, dict) or given.get("type") != "function":
        return False
    if not isinstance(function, dict) or not _TOOL_NAME.fullmatch(str(function.get("name", ""))):
        return False
    kinds = {"name": str, "description": str, "parameters": dict, "strict": bool}
    return all(isinstance(function[key], kind) for key, kind in kinds.items() if key in function)


def _shown(given: object) -> str:
    return repr(given)[:64]
