"""Version texts: plain positive decimals, labels, or nothing."""

import pytest

from trivet.backends.api import InvalidRequest
from trivet.server.protocol.versions import parse_version


def test_a_decimal_is_its_number_and_nothing_is_the_newest() -> None:
    assert parse_version("") is None
    assert parse_version("1") == 1
    assert parse_version("9" * 19) == int("9" * 19)


def test_what_begins_with_a_letter_is_a_label() -> None:
    assert parse_version("v1") == "v1"


@pytest.mark.parametrize("text", ["_v1", "-1", "+1", "01", "0", "1.0", "1" * 20, " 1", "\u0661"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="failed to get model version from specified version"):
        parse_version(text)
