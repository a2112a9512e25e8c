"""The page of promises names tests that exist, and none of the fault tests is forgotten by it."""

import ast
import re

import pytest
from documents import ROOT

PAGE = ROOT / "docs/promises.md"
NAME = re.compile(r"`(tests/[^`]+\.py|test_\w+)`")
# Whole areas that have a page of their own, or tests that watch over documents.
TOLD_ELSEWHERE = re.compile(r"test_\w+_rows\.py|test_error_texts\.py")


def promised() -> set[tuple[str, str]]:
    """File and test, as the page names them: a file stands before its tests."""
    found, file = set(), ""
    for name in NAME.findall(PAGE.read_text(encoding="utf-8")):
        if name.startswith("tests/"):
            file = name
        else:
            found.add((file, name))
    return found


def names_in(file: str) -> set[str]:
    """The names of a file's test functions."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.fixture(scope="module")
def pairs() -> set[tuple[str, str]]:
    found = promised()
    assert len(found) > 50
    return found


def test_every_test_that_shows_a_promise_exists(pairs: set[tuple[str, str]]) -> None:
    files = {file for file, _ in pairs}
    existing = {file: names_in(file) for file in files if (ROOT / file).exists()}

    assert {file for file in files if file not in existing} == set()
    assert [pair for pair in sorted(pairs) if pair[1] not in existing[pair[0]]] == []


def test_every_promise_names_a_test_or_a_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    promises = re.split(r"^- ", text, flags=re.MULTILINE)[1:]

    assert [each[:60] for each in promises if "`test_" not in each and ".md)" not in each] == []


def test_every_file_of_fault_tests_is_on_the_page(pairs: set[tuple[str, str]]) -> None:
    named = {file for file, _ in pairs}
    files = {f"tests/faults/{path.name}" for path in (ROOT / "tests/faults").glob("test_*.py")}

    assert {file for file in files - named if not TOLD_ELSEWHERE.search(file)} == set()
