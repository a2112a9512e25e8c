"""The text of a model version, as both protocols carry it."""

from collections.abc import Mapping

from trivet.server.models.traffic import MAX_DIGITS, is_label, no_version

HEADER = "x-model-version"
"""What a request may say that has no other place for a version."""


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
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS) or text[0] == "0":
        raise no_version(text)
    return int(text)
