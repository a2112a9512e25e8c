"""Every row of bad input has its test, and the page that tells of them tells the truth."""

import pytest
from bad_input import marked_rows, told_rows

COUNTS = {"H": 37, "V": 63, "R": 27, "G": 20, "O": 51}
ROWS = [f"{letter}{number:02d}" for letter, most in COUNTS.items() for number in range(1, most + 1)]


@pytest.fixture(scope="module")
def marked() -> dict[str, list[str]]:
    """By row the files with its tests."""
    return marked_rows()


def test_every_row_has_a_test(marked: dict[str, list[str]]) -> None:
    assert [row for row in ROWS if row not in marked] == []


def test_no_test_is_marked_with_a_row_that_is_none(marked: dict[str, list[str]]) -> None:
    assert marked.keys() - set(ROWS) == set()


def test_the_page_tells_every_row_in_order() -> None:
    assert list(told_rows()) == ROWS


def test_the_page_names_the_files_with_a_row_s_tests(marked: dict[str, list[str]]) -> None:
    told = told_rows()
    wrong = {row: files for row, files in marked.items() if told.get(row) != files}

    assert wrong == {}, "docs/bad-input.md is to name these files"
