"""The table of docs/bad-input.md: what it promises, and which tests are marked with its rows.

`rows("H07b")` marks a test that runs this case: pytest compares what was heard while it ran with
what the page says (`differences`). `more_of("H07")` marks one that shows what a row says besides.
"""

import importlib.util
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from types import ModuleType

import grpc
import pytest
from heard import Answer

from trivet.server.grpc.http2.frames import ErrorCode

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "bad-input.md"
_LINE = re.compile(r"^\| ([HVRGO]\d\d) \| (.+) \| (.+) \| (.*) \|$", re.MULTILINE)
_MARKED = re.compile(r"mark\.rows\(|mark\.more_of\(|by_row\(|shows\(")
_QUOTED = re.compile(r"`([^`]+)`")
_NAMES = re.compile(r"(?:names|with) (`[^`]+`(?:(?:, | and )`[^`]+`)*)")
_CODES = {code.name for code in (*grpc.StatusCode, *ErrorCode)}
_OVER_GRPC = {("V", 400): "INVALID_ARGUMENT"}
"""What the heading of a table says of other protocols than the row's."""
_Kind = frozenset[int | str]


@dataclass(frozen=True)
class Case:
    """What one kind of wrong input is answered with, as the page says."""

    id: str
    what: str
    answer: str

    @property
    def row(self) -> str:
        return self.id[:3]

    @property
    def numbers(self) -> list[int]:
        """Those in the description of the input."""
        return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\b", self.what)]

    @property
    def statuses(self) -> frozenset[int]:
        """Of which an answer over HTTP has one."""
        return frozenset(map(int, re.findall(r"\b[1-5]\d\d\b", _QUOTED.sub("", self.answer))))

    @property
    def codes(self) -> frozenset[str]:
        """Of which an answer over gRPC, or the end of a stream or connection, has one."""
        return frozenset(re.findall(r"\b[A-Z_]{6,}\b", _QUOTED.sub("", self.answer))) & _CODES

    @property
    def names(self) -> list[str]:
        """What the answer's text or headers hold."""
        lists = _NAMES.findall(self.answer)
        return [name for each in lists for name in _QUOTED.findall(each)]

    @property
    def is_closed(self) -> bool:
        return re.search(r"\bclosed\b", self.answer) is not None

    @property
    def is_prose(self) -> bool:
        """Whether there is nothing that an answer can be compared with."""
        return not (self.statuses or self.codes or self.names or self.is_closed)

    def differences(self, heard: Sequence[Answer]) -> list[str]:
        """What the page says and nobody heard."""
        wanted = [each for each in (_Kind(self.statuses), _Kind(self.codes)) if each]
        if self.names and not wanted:
            wanted = [_Kind()]
        missing = [
            f"{sorted(map(str, each))} with {self.names}"
            for each in wanted
            if not any(self._is_told(answer, each) for answer in heard)
        ]
        if self.is_closed and not any(answer.is_closed for answer in heard):
            missing.append("the connection is closed")
        return missing

    def _is_told(self, answer: Answer, wanted: "_Kind") -> bool:
        given = {answer.status, answer.code}
        given |= {status for (table, status), code in _OVER_GRPC.items()
                  if table == self.id[0] and code == answer.code}  # fmt: skip
        # Where a row has a status and a code, what it names is in the answer over HTTP.
        names = [] if self.statuses and wanted == self.codes else self.names
        told = answer.text.lower()
        return (not wanted or bool(wanted & given)) and all(n.lower() in told for n in names)


def cases_of(row: str, what: str, answer: str) -> list[Case]:
    """Those of a row: one, or as many as both columns have parts between semicolons."""
    answers, inputs = answer.split("; "), what.split("; ")
    if len(answers) == 1:
        return [Case(row, what, answer)]
    pairs = enumerate(zip_longest(inputs, answers, fillvalue=""))
    return [Case(f"{row}{chr(ord('a') + index)}", *pair) for index, pair in pairs]


@cache
def told_cases() -> dict[str, Case]:
    """What the page says, by the ids of the cases."""
    lines = _LINE.findall(PAGE.read_text(encoding="utf-8"))
    cases = [case for row, what, answer, _ in lines for case in cases_of(row, what, answer)]
    return {case.id: case for case in cases}


def case(id_: str) -> Case:
    """What the page says of this case."""
    return told_cases()[id_]


def differences(ids: Iterable[str], heard: Sequence[Answer]) -> list[str]:
    """What the page says of these cases and what was heard, where they differ."""
    cases = [case(id_) for id_ in ids]
    found = [
        f"{each.id}: docs/bad-input.md says {each.answer!r}; not heard: {missing}"
        for each in cases
        for missing in each.differences(heard)
    ]
    statuses = frozenset[int]().union(*(each.statuses for each in cases))
    if statuses:
        found += [
            f"{list(ids)}: docs/bad-input.md does not say {answer.status}: {answer.text[:300]}"
            for answer in heard
            if answer.status >= 400 and answer.status not in statuses
        ]
    return found


def told_rows() -> dict[str, list[str]]:
    """By row the files that the page names."""
    lines = _LINE.findall(PAGE.read_text(encoding="utf-8"))
    return {row: re.findall(r"`([^`]+)`", files) for row, _, _, files in lines}


@dataclass(frozen=True)
class Marks:
    """Files with marked tests."""

    shown: dict[str, set[str]]
    """By case, those with tests that run it."""
    more: dict[str, set[str]]
    """By row, those with tests that show more of it."""

    def files(self, row: str) -> list[str]:
        """All of a row, in the page's order."""
        cases = [files for case, files in self.shown.items() if case[:3] == row]
        return sorted(self.more.get(row, set()).union(*cases))


def marked() -> Marks:
    """What is marked in all test files, as the marks come out of the tables."""
    found: dict[str, dict[str, set[str]]] = {
        "rows": defaultdict(set),
        "more_of": defaultdict(set),
    }
    for path in TESTS.rglob("test_*.py"):
        if _MARKED.search(path.read_text(encoding="utf-8")):
            for mark in _marks_in(_load(path)):
                for id_ in mark.args if mark.name in found else ():
                    found[mark.name][id_].add(path.relative_to(TESTS.parent).as_posix())
    return Marks(found["rows"], found["more_of"])


def _marks_in(module: ModuleType) -> Iterator[pytest.Mark]:
    """Of the tests, and of their single examples."""
    for value in vars(module).values():
        for mark in getattr(value, "pytestmark", ()) if callable(value) else ():
            yield mark
            for example in mark.args[1] if mark.name == "parametrize" else ():
                for mine in getattr(example, "marks", ()):
                    yield mine if isinstance(mine, pytest.Mark) else mine.mark


def _load(path: Path) -> ModuleType:
    """The module once more, under a name of its own: pytest's may not be there."""
    name = "_".join(("rows", *path.relative_to(TESTS).with_suffix("").parts))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
