"""The table of bad input in docs/bad-input.md, and which tests are marked with its rows."""

import importlib.util
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "bad-input.md"
_LINE = re.compile(r"^\| ([HVRGO]\d\d) \| (.+) \| (.+) \| (.*) \|$", re.MULTILINE)
_MARKED = re.compile(r"mark\.rows\(|@rows_of")


def told_rows() -> dict[str, list[str]]:
    """By row the files that the page names."""
    lines = _LINE.findall(PAGE.read_text(encoding="utf-8"))
    return {row: re.findall(r"`([^`]+)`", files) for row, _, _, files in lines}


def marked_rows() -> dict[str, list[str]]:
    """By row the files with a test that is marked with it, as the marks come out of the tables."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in TESTS.rglob("test_*.py"):
        if _MARKED.search(path.read_text(encoding="utf-8")):
            for row in _rows_in(_load(path)):
                found[row].add(path.relative_to(TESTS.parent).as_posix())
    return {row: sorted(files) for row, files in found.items()}


def _rows_in(module: ModuleType) -> Iterator[str]:
    for value in vars(module).values():
        for mark in getattr(value, "pytestmark", ()):
            if mark.name == "rows":
                yield from mark.args


def _load(path: Path) -> ModuleType:
    """The module once more, under a name of its own: pytest's may not be there."""
    name = "_".join(("rows", *path.relative_to(TESTS).with_suffix("").parts))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
