"""The text of a model version, as both protocols carry it."""

from collections.abc import Mapping

from trivet.backends.api import InvalidRequest
from trivet.server.models.traffic import is_label

HEADER = "x-model-version"
"""What a request may say that has no other place for a version."""
_MAX_DIGITS = 19


def version_in(headers: Mapping[str, str]) -> int | str | None:
    """The version that a request's headers or metadata name. Raises InvalidRequest."""
    return parse_version(headers.get(HEADER, ""))


def parse_version(text: str) -> int | str | None:
    """A version's number or label; None for the empty text: the server chooses.

    Raises InvalidRequest for anything but a label or a plain positive decimal of at most 19 digits.
    """
    if not text:
        return None
    if is_label(text):
        return text
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS) or text[0] == "0":
        raise InvalidRequest(
            f"failed to get model version from specified version string '{text[:64]}': a version "
            f"is a positive decimal number of at most {_MAX_DIGITS} digits without a leading zero"
        )
    return int(text)
