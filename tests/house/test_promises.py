"""The page of promises names tests that exist and the tier that runs them, and forgets none of the
fault tests."""

import ast
import re
from functools import cache

import pytest
from documents import ROOT

PAGE = ROOT / "docs/promises.md"
NAME = re.compile(r"`(tests/[^`]+\.py|test_\w+)`")
TIER = re.compile(r"\*(check|check-all|check, check-all)\*$")
SLOW = "pytest.mark.slow"
# Whole areas that have a page of their own, or tests that watch over documents.
TOLD_ELSEWHERE = re.compile(r"test_\w+_rows\.py|test_error_texts\.py")


def shown_by(text: str) -> set[tuple[str, str]]:
    """File and test, as the text names them: a file stands before its tests."""
    found, file = set(), ""
    for name in NAME.findall(text):
        if name.startswith("tests/"):
            file = name
        else:
            found.add((file, name))
    return found


def promises() -> list[str]:
    """Each with its tests and, last, its tier."""
    text = PAGE.read_text(encoding="utf-8")
    return [part.split("\n\n")[0] for part in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]


@cache
def functions_of(file: str) -> dict[str, set[str]]:
    """The tiers that run a file's test functions. One whose parameters alone are marked is in both:
    `make check` runs the others."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    of_file = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
    is_slow = any("pytestmark" in line and SLOW in line for line in of_file)
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            marks = [ast.unparse(mark) for mark in node.decorator_list]
            if is_slow or SLOW in marks:
                found[node.name] = {"check-all"}
            else:
                has_more = any(SLOW in mark for mark in marks)
                found[node.name] = {"check", "check-all"} if has_more else {"check"}
    return found


def tiers_of(pairs: set[tuple[str, str]]) -> list[str]:
    """Those that run one of the tests; a page of its own has its tests in `check`."""
    return sorted(set().union(*(functions_of(file)[name] for file, name in pairs)) or {"check"})


@pytest.fixture(scope="module")
def pairs() -> set[tuple[str, str]]:
    found = shown_by(PAGE.read_text(encoding="utf-8"))
    assert len(found) > 50
    return found


def test_every_test_that_shows_a_promise_exists(pairs: set[tuple[str, str]]) -> None:
    files = {file for file, _ in pairs}
    existing = {file: functions_of(file) for file in files if (ROOT / file).exists()}

    assert {file for file in files if file not in existing} == set()
    assert [pair for pair in sorted(pairs) if pair[1] not in existing[pair[0]]] == []


def test_every_promise_names_a_test_or_a_page() -> None:
    nothing = [each[:60] for each in promises() if "`test_" not in each and ".md)" not in each]
    assert nothing == []


def test_every_promise_names_the_tier_that_runs_its_tests() -> None:
    told = {each: TIER.search(each.rstrip()) for each in promises()}
    assert [each[-60:] for each, tier in told.items() if tier is None] == []
    wrong = [
        (each[:60], tiers)
        for each, tier in told.items()
        if tier is not None and tier[1] != (tiers := ", ".join(tiers_of(shown_by(each))))
    ]
    assert wrong == []


def test_every_file_of_fault_tests_is_on_the_page(pairs: set[tuple[str, str]]) -> None:
    named = {file for file, _ in pairs}
    files = {f"tests/faults/{path.name}" for path in (ROOT / "tests/faults").glob("test_*.py")}

    assert {file for file in files - named if not TOLD_ELSEWHERE.search(file)} == set()
