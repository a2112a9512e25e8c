"""Every row of bad input has tests that run it, and the page that tells of them tells the truth.

That the servers answer what the page says is compared while the marked tests run (`conftest.py`).
"""

import pytest
from bad_input import Case, Marks, cases_of, marked, told_cases, told_rows
from heard import Answer

COUNTS = {"H": 37, "V": 64, "R": 40, "G": 20, "O": 57}
ROWS = [f"{letter}{number:02d}" for letter, most in COUNTS.items() for number in range(1, most + 1)]
PROSE = {
    "H17": "nobody is there to be answered",
    "H31": "nobody is there to be answered",
    "R17": "what is passed over is not answered for",
    "R18": "which answers come is chance",
    "R19": "nothing is asked",
    "R20": "nothing is asked",
    "R24": "needs a GPU's memory",
    "R34": "nothing is asked",
    "R35": "nothing is asked",
    "R36": "nothing is asked",
    "R37": "nothing is asked",
    "R40a": "nothing is asked",
    "R40b": "nothing is asked",
    "G09": "nobody is there to be answered",
    "G10": "nothing is asked",
    "G16a": "nothing is answered until somebody reads",
    "G18": "no handshake, no answer",
    "G20": "an answer like any other",
    "O22": "a bound of time",
    "O40": "nobody is there to be answered",
    "O44": "a bound of time",
    "O48": "the event within the stream",
}
"""Cases that say nothing which an answer could be compared with, and why."""


@pytest.fixture(scope="module")
def marks() -> Marks:
    return marked()


def test_every_case_has_a_test_that_runs_it(marks: Marks) -> None:
    assert [case for case in told_cases() if case not in marks.shown] == []


def test_no_test_is_marked_with_a_row_that_is_none(marks: Marks) -> None:
    assert marks.shown.keys() - told_cases().keys() == set()
    assert marks.more.keys() - set(ROWS) == set()


def test_the_page_tells_every_row_in_order() -> None:
    assert list(told_rows()) == ROWS


def test_the_page_names_the_files_with_a_row_s_tests(marks: Marks) -> None:
    wrong = {row: marks.files(row) for row, told in told_rows().items() if told != marks.files(row)}

    assert wrong == {}, "docs/bad-input.md is to name these files"


def test_cases_stand_in_both_columns() -> None:
    assert [case.id for case in told_cases().values() if not (case.what and case.answer)] == []


def test_every_case_says_what_an_answer_can_be_compared_with() -> None:
    assert {case.id for case in told_cases().values() if case.is_prose} == PROSE.keys()


def test_cases_are_read_from_both_columns() -> None:
    answer = "400, names `--x`, `y` and `z`; 503 UNAVAILABLE with `Retry-After`, closed behind `w`"
    first, second = cases_of("V99", "1,000 a; b", answer)
    assert (first.id, first.what, first.numbers) == ("V99a", "1,000 a", [1000])
    assert first.statuses == frozenset({400})
    assert (first.names, first.is_closed) == (["--x", "y", "z"], False)
    assert second.statuses | second.codes == frozenset({503, "UNAVAILABLE"})
    assert (second.names, second.is_closed) == (["Retry-After"], True)


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        ("400", Answer(413)),
        ("400", Answer(code="RESOURCE_EXHAUSTED")),
        ("400, names `64`", Answer(400, text="the limit is 65")),
        ("400, closed", Answer(400)),
        ("closed", Answer(400)),
        ("RESOURCE_EXHAUSTED", Answer(code="CANCELLED")),
        ("503 UNAVAILABLE", Answer(503)),
        ("503 UNAVAILABLE", Answer(code="UNAVAILABLE")),
        ("503 with `Retry-After`", Answer(503)),
    ],
)
def test_an_answer_that_the_page_does_not_tell_is_a_difference(answer: str, heard: Answer) -> None:
    assert Case("H99", "", answer).differences([heard]) != []


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        ("400", [Answer(200), Answer(400)]),
        ("400", [Answer(code="INVALID_ARGUMENT")]),
        ("400 or 200", [Answer(200)]),
        ("400, names `64`, closed", [Answer(400, text="the limit is 64"), Answer(is_closed=True)]),
        (
            "503 UNAVAILABLE with `Retry-After`",
            [Answer(503, text="retry-after: 1"), Answer(code="UNAVAILABLE")],
        ),
        ("held back", []),
    ],
)
def test_an_answer_that_the_page_tells_is_none(answer: str, heard: list[Answer]) -> None:
    assert Case("V99", "", answer).differences(heard) == []
