"""Marks that say which rows of docs/bad-input.md a test shows, taken from the test's own table."""

from collections.abc import Iterable
from typing import Any

import pytest


def by_row(table: Iterable[object]) -> list[Any]:
    """The examples of a table whose entries show as "H03a -1": row, then what is special."""
    return [shows(str(entry).partition(" ")[0], entry, label=str(entry)) for entry in table]


def shows(row: str, *values: object, label: str | None = None) -> Any:
    """An example that runs this row, if it is one."""
    marks = [pytest.mark.rows(row)] if is_row(row) else []
    return pytest.param(*values, marks=marks, id=label)


def is_row(name: str) -> bool:
    return 3 <= len(name) <= 4 and name[0] in "HVRGO" and name[1:3].isdigit()
