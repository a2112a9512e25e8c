"""What may be expected of an answer. Each matcher is read when the set is: what it lacks is told
with file and line before anything is asked."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trivet.server.evaluation.answer import Answer, Call
from trivet.server.evaluation.faults import SetFault
from trivet.server.evaluation.json_path import JsonPath

_SHOWN = 120


class Helpers(Protocol):
    """What some matchers need besides the answer."""

    def matches(self, pattern: str, text: str) -> bool:
        """Whether a regular expression is found in a text, within a bound of time. Raises
        SetFault."""

    def schema_fault(self, schema: Mapping[str, Any], value: Any) -> str:
        """Why a value is not as a schema says, within a bound of time; empty: it is. Raises
        SetFault."""

    def similarity(self, model: str, texts: tuple[str, str]) -> float:
        """The cosine of the texts' embeddings by a model that is served. Raises SetFault."""

    def verdict(self, rubric: str, question: str, answer: str, reference: str) -> "Verdict":
        """What a judge says. Raises SetFault, JudgeFault."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer is as it was expected."""

    passed: bool
    why: str = ""
    """Where it is not; for a judge's also where it is."""


PASSED = Verdict(passed=True)


class Matcher(Protocol):
    """One expectation."""

    def check(self, question: str, answer: Answer, helpers: Helpers) -> Verdict:
        """`question`: what was asked, as a text. Raises SetFault, JudgeFault."""


@dataclass(frozen=True, slots=True)
class Exact:
    """The text, or an output, is this and nothing else."""

    value: Any
    output: str = ""
    strip: bool = True

    def check(self, question: str, answer: Answer, helpers: Helpers) -> Verdict:  # noqa: ARG002
        if not self.output:
            text = answer.text.strip() if self.strip else answer.text
            return _verdict(text == self.value, f"expected {_cut(self.value)}, got {_cut(text)}")
        found = _output(answer, self.output)
        if isinstance(found, Verdict):
            return found
        wanted = np.asarray(self.value, dtype=found.dtype if found.dtype != object else object)
        is_equal = wanted.size == found.size and bool((wanted.ravel() == found.ravel()).all())
        return _verdict(is_equal, f"'{self.output}' is {_cut(found.tolist())}")


@dataclass(frozen=True, slots=True)
class Regex:
    """The text has a place that a regular expression matches."""

    pattern: str
    output: str = ""

    def check(self, question: str, answer: Answer, helpers: Helpers) -> Verdict:  # noqa: ARG002
        text = _text_of(answer, self.output)
        if isinstance(text, Verdict):
            return text
        is_found = helpers.matches(self.pattern, text)
        return _verdict(is_found, f"/{self.pattern}/ is nowhere in {_cut(text)}")


@dataclass(frozen=True, slots=True)
class AtPath:
    """The text is JSON that has this value at a path."""

    path: JsonPath
    value: Any

    def check(self, question: str, answer: Answer, helpers: Helpers) -> Verdict:  # noqa: ARG002
        try:
            document = json.loads(answer.text)
        except (ValueError, RecursionError):
            return Verdict(passed=False, why=f"it is no JSON: {_cut(answer.text)}")
        found = self.path.find(document)
        return _verdict(self.value in found, f"{self.path} is {_cut(found or 'nothing')}")


@dataclass(frozen=True, slots=True)
class Numeric:
    """An output, or the text as a number, is near a value."""

    value: Any
    output: str = ""
    tolerance: float = 1e-6
    relative: float = 0.0

    def check(self, question: str, answer: Answer, helpers: Helpers) -> Verdict:  # noqa: ARG002
        found = _numbers(answer, self.output)
        if isinstance(found, Verdict):
            return found
        wanted = np.asarray(self.value, dtype=np.float64).ravel()
        if wanted.size != found.size:
            return Verdict(passed=False, why=f"{found.size} numbers, not {wanted.size}")
        # Whatever is no number is near to nothing, but to itself.
        near = np.isclose(found, wanted, self.relative, self.tolerance, equal_nan=True)
        if near.all():
            return PASSED
        place = int(np.argmin(near))
        told = f"number {place} is {found[place]:g}, not {wanted[place]:g}"
        return Verdict(passed=False, why=f"{told} within {self.tolerance:g}")


@dataclass(frozen=True, slots=True)
class TopK:
    """An index is among the largest of an output."""

    value: int
    output: str
    k: int = 1

    def check(self, question: str, answer: Answer, helpers: Helpers) -> Verdict:  # noqa: ARG002
        found = _numbers(answer, self.output)
        if isinstance(found, Verdict):
            return found
        best = np.argsort(-found, kind="stable")[: self.k].tolist()
        return _verdict(self.value in best, f"the best {self.k} of '{self.output}' are {best}")


@dataclass(frozen=True, slots=True)
class Similar:
    """The text means about the same as another, by an embedding model."""

    value: str
    model: str
    at_least: float = 0.8

    def check(self, question: str, answer: Answer, helpers: Helpers) -> Verdict:  # noqa: ARG002
        cosine = helpers.similarity(self.model, (self.value, answer.text))
        return _verdict(cosine >= self.at_least, f"similarity {cosine:.3f} < {self.at_least:g}")


@dataclass(frozen=True, slots=True)
class Schema:
    """The text is JSON as a JSON schema says."""

    schema: Mapping[str, Any]

    def check(self, question: str, answer: Answer, helpers: Helpers) -> Verdict:  # noqa: ARG002
        try:
            document = json.loads(answer.text)
        except (ValueError, RecursionError):
            return Verdict(passed=False, why=f"it is no JSON: {_cut(answer.text)}")
        fault = helpers.schema_fault(self.schema, document)
        return _verdict(not fault, fault)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool is called, with at least these arguments."""

    name: str
    arguments: Mapping[str, Any]

    def check(self, question: str, answer: Answer, helpers: Helpers) -> Verdict:  # noqa: ARG002
        called = [f"{each.name}({_cut(each.arguments)})" for each in answer.calls]
        is_called = any(map(self._is_meant, answer.calls))
        return _verdict(is_called, f"it called {', '.join(called) or 'nothing'}")

    def _is_meant(self, call: Call) -> bool:
        given = call.arguments if isinstance(call.arguments, dict) else {}
        return call.name == self.name and all(
            key in given and given[key] == value for key, value in self.arguments.items()
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge finds that the answer is as a rubric says, or no worse than a reference."""

    rubric: str
    reference: str = ""

    def check(self, question: str, answer: Answer, helpers: Helpers) -> Verdict:
        return helpers.verdict(self.rubric, question, answer.text, self.reference)


@dataclass(frozen=True, slots=True)
class _Field:
    """A key of a matcher."""

    kinds: tuple[type, ...]
    is_required: bool = True


_ANY = (str, int, float, bool, list, dict, type(None))
_NUMBER = (int, float)
_FORMS: Mapping[str, tuple[Callable[..., Matcher], Mapping[str, _Field]]] = {
    "exact": (
        Exact,
        {"value": _Field(_ANY), "output": _Field((str,), False), "strip": _Field((bool,), False)},
    ),
    "regex": (Regex, {"pattern": _Field((str,)), "output": _Field((str,), False)}),
    "json_path": (AtPath, {"path": _Field((str,)), "value": _Field(_ANY)}),
    "numeric": (
        Numeric,
        {
            "value": _Field((*_NUMBER, list)),
            "output": _Field((str,), False),
            "tolerance": _Field(_NUMBER, False),
            "relative": _Field(_NUMBER, False),
        },
    ),
    "top_k": (
        TopK,
        {"value": _Field((int,)), "output": _Field((str,)), "k": _Field((int,), False)},
    ),
    "similarity": (
        Similar,
        {"value": _Field((str,)), "model": _Field((str,)), "at_least": _Field(_NUMBER, False)},
    ),
    "json_schema": (Schema, {"schema": _Field((dict, str))}),
    "tool_call": (ToolCall, {"name": _Field((str,)), "arguments": _Field((dict,), False)}),
    "judge": (Judged, {"rubric": _Field((str,)), "reference": _Field((str,), False)}),
}
_FILES = {"json_schema": "schema", "judge": "rubric"}
"""Keys that may name a file beside the set."""


def parse_matcher(given: object, folder: Path, place: str) -> Matcher:
    """A matcher as a set has it. Raises SetFault."""
    if not isinstance(given, dict) or not isinstance(given.get("match"), str):
        raise SetFault(f'{place}: a matcher is an object with "match", one of {", ".join(_FORMS)}')
    word = given["match"]
    if word not in _FORMS:
        near = get_close_matches(word, _FORMS, n=1)
        meant = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(_FORMS)}"
        raise SetFault(f"{place}: there is no matcher '{word[:64]}'; {meant}")
    make, fields = _FORMS[word]
    values = {key: value for key, value in given.items() if key != "match"}
    for key in values:
        if key not in fields:
            raise SetFault(f"{place}: {word} takes no '{key[:64]}'; it takes {', '.join(fields)}")
    for key, field in fields.items():
        if key not in values and field.is_required:
            raise SetFault(f"{place}: {word} needs '{key}'")
        is_flag = isinstance(values.get(key), bool) and bool not in field.kinds
        if key in values and (is_flag or not isinstance(values[key], field.kinds)):
            raise SetFault(f"{place}: {word}.{key} has a value of the wrong kind: {values[key]!r}")
    return _made(word, make, values, folder, place)


def _made(
    word: str, make: Callable[..., Matcher], values: dict[str, Any], folder: Path, place: str
) -> Matcher:
    key = _FILES.get(word, "")
    if key and isinstance(values[key], str) and values[key].endswith((".json", ".md", ".txt")):
        values[key] = _file(folder / values[key], place)
    if word == "regex":
        _check_pattern(values["pattern"], place)
    elif word == "json_path":
        values["path"] = JsonPath.parse(values["path"], place)
    elif word == "tool_call":
        values.setdefault("arguments", {})
    elif word == "json_schema" and not isinstance(values["schema"], dict):
        raise SetFault(f"{place}: json_schema.schema is to be an object, or a .json file of one")
    return make(**values)


def _check_pattern(pattern: str, place: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise SetFault(f"{place}: '{pattern[:64]}' is no regular expression: {error}") from None


def _file(path: Path, place: str) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else text
    except (OSError, ValueError) as error:
        raise SetFault(f"{place}: '{path}' cannot be read: {error}") from None


def _verdict(passed: bool, why: str) -> Verdict:  # noqa: FBT001
    return PASSED if passed else Verdict(passed=False, why=why)


def _output(answer: Answer, name: str) -> np.ndarray | Verdict:
    found = answer.outputs.get(name)
    if found is None:
        known = ", ".join(answer.outputs) or "none"
        return Verdict(passed=False, why=f"there is no output '{name}'; there are {known}")
    return found


def _text_of(answer: Answer, output: str) -> str | Verdict:
    if not output:
        return answer.text
    found = _output(answer, output)
    return found if isinstance(found, Verdict) else "\n".join(map(str, found.ravel()))


def _numbers(answer: Answer, output: str) -> np.ndarray | Verdict:
    """In float64, one behind the other."""
    found = _output(answer, output) if output else np.asarray([answer.text.strip()])
    if isinstance(found, Verdict):
        return found
    try:
        return np.asarray(found, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        return Verdict(passed=False, why=f"it is no number: {_cut(found.tolist())}")


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
