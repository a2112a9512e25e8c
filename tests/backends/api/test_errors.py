"""The text of an error can always be sent."""

import pytest

from trivet.backends.api import BackendFailed, QueueFull
from trivet.backends.api.errors import MAX_MESSAGE_CHARACTERS


@pytest.mark.parametrize("kind", [BackendFailed, QueueFull])
def test_what_utf8_does_not_have_is_shown_by_its_escape(kind: type[BackendFailed]) -> None:
    error = kind("no label \ud83d, é")
    assert error.message == str(error) == "no label \\ud83d, é"


def test_a_text_without_end_is_cut() -> None:
    error = BackendFailed("x" * (20 << 20))
    assert error.message == "x" * MAX_MESSAGE_CHARACTERS + "…"
